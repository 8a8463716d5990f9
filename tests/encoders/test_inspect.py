"""What `qtable inspect` says of real files, whose makers and settings are known."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qtable.cli import main
from qtable.encoders.formats import FORMATS
from qtable.encoders.inspect import jpeg_facts
from qtable.encoders.verify import EncoderError, find_encoder
from qtable.jpeg.codec import ENTROPIES, RGB, SUBSAMPLINGS, Codec, Entropy, Subsampling
from qtable.jpeg.tables import QTables
from tests.jpeg.test_codec import EOI, FLAT, HIERARCHICAL, SOI, cjpeg, dqt, frame, scan, segment
from tests.jpeg.test_layouts import LAYOUTS, made

LIBJPEG = "libjpeg or a program with it (libjpeg-turbo, Pillow, OpenCV ...)"


def pillow(photo: RGB, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints."""
    with pytest.raises(SystemExit) as status:
        main(["inspect", str(path)])
    assert status.value.code == 0
    return capsys.readouterr().out


# ---- tables and quality ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [1, 2, 10, 49, 50, 75, 95, 99, 100])
def test_libjpegs_quality_is_found_exactly(photo: RGB, quality: int) -> None:
    facts = jpeg_facts(pillow(photo, quality=quality))
    assert (facts["nearest_quality"], facts["mean_difference"]) == (quality, 0)
    assert [q["nearest_quality"] for q in facts["quantization"]] == [quality, quality]
    assert [q["of"] for q in facts["quantization"]] == ["luma", "chroma"]
    assert [q["components"] for q in facts["quantization"]] == [["Y"], ["Cb", "Cr"]]
    assert facts["tables"] == QTables.standard(quality).values.tolist()
    assert facts["encoder"]["likely"] == f"{LIBJPEG} at quality {quality}"


def test_luma_and_chroma_may_have_their_own_qualities(tmp_path: Path, photo: RGB) -> None:
    facts = jpeg_facts(cjpeg(photo, tmp_path, "-quality", "90,60"))
    assert [q["nearest_quality"] for q in facts["quantization"]] == [90, 60]
    assert all(q["mean_difference"] == 0 for q in facts["quantization"])
    assert facts["mean_difference"] > 0
    assert facts["encoder"]["likely"] == f"{LIBJPEG} at qualities 90, 60"


def test_entries_above_255_are_shown_with_a_note_and_their_quality(
    tmp_path: Path, photo: RGB, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cjpeg(photo, tmp_path, "-quality", "5")
    facts = jpeg_facts(data)
    assert facts["tables"] is None
    assert "qtable cannot use these tables: entry [" in facts["note"]
    assert [(q["nearest_quality"], q["mean_difference"]) for q in facts["quantization"]] == [(5, 0), (5, 0)]
    assert [q["entry_bits"] for q in facts["quantization"]] == [16, 16]
    assert facts["quantization"][0]["values"] == (10 * QTables.standard(50).values[0].astype(int)).tolist()
    (tmp_path / "a.jpg").write_bytes(data)
    text = inspect(tmp_path / "a.jpg", capsys)
    assert "1210" in text
    assert "luma at IJG quality 5, exactly" in text


def test_a_guess_is_called_one(tmp_path: Path, photo: RGB, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(pillow(photo, qtables=[list(range(1, 65))] * 2))
    assert "a guess" in inspect(tmp_path / "a.jpg", capsys)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_four_components_share_a_table_and_keep_its_quality(photo: RGB, mode: str) -> None:
    facts = jpeg_facts(pillow(photo, mode, quality=60))
    (only,) = facts["quantization"]
    assert only["components"] == (["Y"] if mode == "L" else ["C", "M", "Y", "K"])
    assert (facts["nearest_quality"], facts["mean_difference"]) == (60, 0)
    assert facts["tables"] == QTables.standard(60).values[:1].tolist()
    assert facts["colour"] == {"L": "grey", "CMYK": "CMYK"}[mode]


def test_more_tables_than_qtable_can_hold_are_shown(asymmetric: QTables) -> None:
    four = "01 22 00 02 11 01 03 11 02 04 22 03"
    tables = [*asymmetric.values, *asymmetric.values[:, ::-1]]
    data = b"".join(dqt(slot, table) for slot, table in enumerate(tables))
    facts = jpeg_facts(SOI + data + frame(0xC0, components=four) + scan("01 00 02 00 03 00 04 00") + EOI)
    assert [q["values"] for q in facts["quantization"]] == [table.tolist() for table in tables]
    assert "qtable cannot use these tables" in facts["note"]


def test_tables_defined_again_and_tables_without_a_component_are_told(
    tmp_path: Path, photo: RGB, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pillow(photo, progressive=True, quality=75)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    again = dqt(0, QTables.standard(75).values[0])
    data = data[:second] + again + dqt(1, QTables.standard(30).values[1]) + data[second:]
    rows = jpeg_facts(data)["quantization"]
    assert [(q["components"], q["slot"], q["defined_before_scan"]) for q in rows] == [
        (["Y"], 0, 1),
        (["Cb", "Cr"], 1, 1),
        ([], 1, 2),
    ]
    (tmp_path / "a.jpg").write_bytes(data)
    line = "no component (slot 1, 8 bits), defined before scan 2: chroma at IJG quality 30, exactly"
    assert line in inspect(tmp_path / "a.jpg", capsys)


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (FLAT, "tables alone"),
        (frame(0xC0) + scan(), "baseline sequential Huffman"),
        (FLAT + frame(0xC1, precision=12) + scan(), "extended sequential Huffman"),
        (frame(0xC3, precision=16) + scan(rest="01 00 00"), "lossless Huffman"),
        (FLAT + HIERARCHICAL, "hierarchical baseline sequential Huffman"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_every_valid_file_is_shown(tmp_path: Path, data: bytes, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(SOI + data + EOI)
    text = inspect(tmp_path / "a.jpg", capsys)
    assert f"coding     {mode}, " in text
    assert ("at IJG quality" in text) == (FLAT in data)
    facts = jpeg_facts(SOI + data + EOI)
    assert facts["note"] is None or facts["note"].startswith("qtable cannot use these tables: ")
    assert (facts["tables"] is None) == (facts["note"] is not None)


# ---- coding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_sampling_huffman_tables_and_scans(photo: RGB, subsampling: Subsampling, entropy: Entropy) -> None:
    facts = jpeg_facts(Codec(subsampling, entropy).encode(photo, QTables.standard(80)))
    assert (facts["colour"], facts["subsampling"]) == ("YCbCr", subsampling)
    assert facts["huffman_tables"] == ("Annex K's" if entropy == "standard" else "optimized")
    assert len(facts["scans"]) == (10 if entropy == "progressive" else 1)
    assert facts["libjpeg_progression"] == (True if entropy == "progressive" else None)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if "," in layout])
def test_every_sampling_factor_is_named(photo: RGB, layout: str) -> None:
    assert jpeg_facts(made(photo, layout, "plain"))["subsampling"] == layout


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_libjpegs_progression_is_known_for_every_number_of_components(photo: RGB, mode: str) -> None:
    assert jpeg_facts(pillow(photo, mode, progressive=True))["libjpeg_progression"]
    if mode == "RGB":
        assert jpeg_facts(pillow(photo, progressive=True, keep_rgb=True))["libjpeg_progression"]


def test_another_progression_is_told(tmp_path: Path, photo: RGB) -> None:
    (tmp_path / "scans.txt").write_text("0 1 2: 0-0, 0, 0;\n0: 1-63, 0, 0;\n1: 1-63, 0, 0;\n2: 1-63, 0, 0;\n")
    facts = jpeg_facts(cjpeg(photo, tmp_path, "-scans", "scans.txt"))
    assert not facts["libjpeg_progression"]
    assert "a progression that is not libjpeg's default" in facts["encoder"]["evidence"]
    assert [s["components"] for s in facts["scans"]] == [[1, 2, 3], [1], [2], [3]]


def test_arithmetic_coding_and_restarts(tmp_path: Path, photo: RGB) -> None:
    facts = jpeg_facts(cjpeg(photo, tmp_path, "-arithmetic", "-restart", "7B"))
    assert facts["mode"] == "extended sequential arithmetic"
    assert facts["huffman_tables"] is None
    assert facts["restart_interval"] == 7


def test_fixed_tables_other_than_annex_ks_are_not_called_optimized(photo: RGB) -> None:
    """Annex K's tables with the codes of two symbols exchanged still serve every photo."""
    data = bytearray(pillow(photo))
    dht = data.index(b"\xff\xc4")
    symbols = dht + 5 + 16
    data[symbols], data[symbols + 1] = data[symbols + 1], data[symbols]
    assert jpeg_facts(bytes(data))["huffman_tables"] == "an encoder's own, for all photos"


def test_missing_huffman_tables_are_told(photo: RGB) -> None:
    data = pillow(photo)
    facts = jpeg_facts(data)
    first = data.index(b"\xff\xc4")
    assert facts["sizes"]["Huffman tables"] == 432  # 4 segments, 4 x 17 lengths, 2 x (12 + 162) symbols
    without = data[:first] + data[first + 420 + 12 :]
    assert jpeg_facts(without)["huffman_tables"] == "none in the file"


def test_rgb_and_ycck_are_told_by_their_markers(photo: RGB) -> None:
    assert jpeg_facts(pillow(photo, keep_rgb=True))["colour"] == "RGB"
    cmyk = pillow(photo, "CMYK")
    adobe = cmyk.index(b"Adobe")
    assert cmyk[adobe + 11] == 0
    assert jpeg_facts(cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :])["colour"] == "YCCK"


# ---- sizes and metadata ---------------------------------------------------------------------------------------


def test_sizes_add_up_and_metadata_is_counted_with_its_markers(photo: RGB) -> None:
    exif = Image.Exif()
    exif[0x0110] = "Model 1"
    profile, xmp, comment = bytes(100_000), b"<x:xmpmeta/>", b"a comment"
    data = pillow(photo, exif=exif, icc_profile=profile, xmp=xmp, comment=comment) + b"trailing"
    facts = jpeg_facts(data)
    sizes = facts["sizes"]
    assert sum(sizes.values()) == len(data) == facts["bytes"]
    assert sizes["quantization tables"] == 2 * (4 + 1 + 64)
    assert sizes["COM"] == 4 + len(comment)
    assert sizes["APP0 JFIF"] == 18
    assert sizes["after EOI"] == 8
    assert sizes["scan data"] == facts["scan_bytes"]
    assert facts["metadata"] == {
        "Exif": 4 + len(exif.tobytes()),
        "ICC": 2 * (4 + 14) + len(profile),  # two segments
        "XMP": 4 + len(b"http://ns.adobe.com/xap/1.0/\0") + len(xmp),
    }
    assert facts["bits_per_pixel"] == 8 * len(data) / (photo.shape[0] * photo.shape[1])


def test_a_terminal_gets_no_control_characters(tmp_path: Path, photo: RGB, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0131] = "\x1b[31mred"
    (tmp_path / "a.jpg").write_bytes(pillow(photo, exif=exif, comment=b"\x07bell\n\x1b]0;title" + 500 * b"x"))
    text = inspect(tmp_path / "a.jpg", capsys)
    assert text.replace("\n", "").isprintable()
    assert r'- comment "\x07bell\n\x1b]0;title' in text
    assert max(map(len, text.splitlines())) < 150


# ---- encoders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(2, 9))
def test_mozjpegs_presets_are_recognised(number: int) -> None:
    pyvips = pytest.importorskip("pyvips")
    facts = jpeg_facts(pyvips.Image.black(32, 32, bands=3).jpegsave_buffer(Q=71, quant_table=number))
    assert facts["encoder"]["likely"] == f"mozjpeg with -quant-table {number} at quality 71"
    assert f"tables exactly mozjpeg's preset {number} at quality 71" in facts["encoder"]["evidence"]


def test_ffmpeg_signs_its_files(photo: RGB, asymmetric: QTables) -> None:
    try:
        encoder = find_encoder("ffmpeg")
    except EncoderError as error:
        pytest.skip(str(error))
    facts = jpeg_facts(encoder.encode(photo, asymmetric, "4:2:0"))
    assert facts["encoder"]["likely"] == "ffmpeg (libavcodec)"
    assert facts["encoder"]["evidence"][1].startswith('comment "Lavc')


def test_a_comment_that_contradicts_exact_tables_is_told_but_not_believed(photo: RGB) -> None:
    gd = "CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 85"
    assert jpeg_facts(pillow(photo, quality=85, comment=gd))["encoder"]["likely"] == "gd (PHP), with libjpeg"
    copied = jpeg_facts(pillow(photo, quality=85, comment="Lavc60.31.102"))["encoder"]
    assert copied["likely"] == f"{LIBJPEG} at quality 85"
    assert 'comment "Lavc60.31.102"' in copied["evidence"]


def test_photoshop_tells_its_quality(photo: RGB) -> None:
    """Image resource 0x0406 of APP13: a signed number, -4..8 for Photoshop's 0..12."""
    resources = b"8BIM\x04\x04\0\0\0\0\0\0" + b"8BIM\x04\x06\0\0\0\0\0\x07" + (6).to_bytes(2, "big") + b"\0\0\0\x03\0"
    app13 = segment(0xED, b"Photoshop 3.0\0" + resources)
    data = pillow(photo, qtables=[list(range(2, 66))] * 2)
    assert jpeg_facts(data)["encoder"]["likely"] is None
    assert jpeg_facts(data[:2] + app13 + data[2:])["encoder"]["likely"] == "Adobe Photoshop at quality 10 of 12"
    ducky = segment(0xEC, b"Ducky\0\x01\0\x04\0\0\0\x3c\0\0")
    assert jpeg_facts(data[:2] + ducky + data[2:])["encoder"]["likely"] == "Adobe Photoshop, Save for Web"


def test_exif_names_the_camera_where_nothing_else_speaks(photo: RGB) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model 1"
    own = jpeg_facts(pillow(photo, qtables=[list(range(2, 66))] * 2, exif=exif))["encoder"]
    assert own["likely"] == "what Exif names: Maker Model 1"
    assert 'Exif model "Model 1"' in own["evidence"]
    assert jpeg_facts(pillow(photo, quality=90, exif=exif))["encoder"]["likely"] == f"{LIBJPEG} at quality 90"


def test_flat_tables_and_strange_ids_are_evidence(photo: RGB) -> None:
    flat = jpeg_facts(pillow(photo, qtables=[[7] * 64]))["encoder"]
    assert flat["likely"] is None
    assert "flat tables" in flat["evidence"]
    evidence = jpeg_facts(pillow(photo, keep_rgb=True))["encoder"]["evidence"]
    assert "component ids 82, 71, 66, not 1, 2, ..." in evidence
    assert "Adobe marker, transform 0" in evidence


# ---- the command ----------------------------------------------------------------------------------------------


def test_json_has_everything_that_people_see(
    tmp_path: Path, photo: RGB, asymmetric: QTables, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Codec().encode(photo, asymmetric)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "a.jpg"), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"file": str(tmp_path / "a.jpg"), **json.loads(json.dumps(jpeg_facts(data)))}
    text = inspect(tmp_path / "a.jpg", capsys)
    for row in (" 1   2   3   4   5   6   7   8", "64  63  62  61  60  59  58  57"):
        assert row in text
    assert f"{len(data):,} bytes, {facts['bits_per_pixel']:.3f} bits a pixel" in text


@pytest.mark.parametrize("name", ["json", "cjpeg", "numpy", "c"])
def test_table_files_of_every_format_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    content = FORMATS[name].write(QTables.standard(37))
    (tmp_path / "tables").write_bytes(content if isinstance(content, bytes) else content.encode())
    text = inspect(tmp_path / "tables", capsys)
    for line in (f"format     {name}", "tables     2", "quality    IJG quality 37, exactly", "chroma: chroma at"):
        assert line in text
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "tables"), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["tables"] == QTables.standard(37).values.tolist()
    assert (facts["format"], facts["count"], facts["nearest_quality"]) == (name, 2, 37)
