"""Real encoders under `qtable verify`, and tables read out of any file."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qtable.cli import main
from qtable.encoders import verify as module
from qtable.encoders.formats import FORMATS
from qtable.encoders.reading import read_tables
from qtable.encoders.verify import (
    ENCODERS,
    NO_ROUTE,
    Difference,
    Encoder,
    EncoderError,
    differences,
    find_encoder,
)
from qtable.jpeg.codec import RGB, SUBSAMPLINGS, Codec, Subsampling, decode
from qtable.jpeg.coefficients import read_coefficients
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import MAX_TABLE_FILE_BYTES, QTables

RISING = np.arange(1, 65).reshape(8, 8)
THREE = QTables(np.stack([RISING, 65 - RISING, RISING.T]))


def encoder_or_skip(name: str) -> Encoder:
    try:
        return find_encoder(name)
    except EncoderError as error:
        pytest.skip(str(error))


# ---- encoders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "ffmpeg"])
def test_encoders_keep_one_to_three_tables_at_every_sampling(name: str, photo: RGB) -> None:
    encoder = encoder_or_skip(name)
    for subsampling in SUBSAMPLINGS:
        for count in (1, 2, 3):
            tables = QTables(THREE.values[:count])
            data = encoder.encode(photo, tables, subsampling)
            header = read_header(data)
            assert (header.tables, header.subsampling, differences(tables, header)) == (tables, subsampling, ())
            assert np.abs(decode(data).astype(int) - photo).mean() < 12
    verdict = module.verify(encoder, THREE, photo, "4:2:0")
    assert (verdict.differences, verdict.subsampling, verdict.bytes) == ((), "4:2:0", len(data))
    assert verdict.own_bytes == len(Codec("4:2:0").encode(photo, THREE))


def test_ffmpeg_loses_dc_and_nothing_else(photo: RGB) -> None:
    encoder = encoder_or_skip("ffmpeg")
    for subsampling in SUBSAMPLINGS:
        verdict = module.verify(encoder, QTables(THREE.values[:2]), photo, subsampling)
        assert verdict.subsampling == subsampling
        assert verdict.differences == tuple(Difference(i, 0, 0, (1, 64, 64)[i], 8) for i in range(3))
        single = module.verify(encoder, QTables(THREE.values[0]), photo, subsampling)
        assert single.differences == tuple(Difference(i, 0, 0, 1, 8) for i in range(3))
    with pytest.raises(EncoderError, match="ffmpeg: format ffmpeg holds luma and chroma tables"):
        encoder.encode(photo, THREE, "4:2:0")


def test_equal_tables_are_equal_coefficients_in_some_encoders_and_fewer_in_others(photo: RGB) -> None:
    tables = QTables.standard(50).values.copy()
    tables[:, 0, 0] = 8  # ffmpeg's
    own = read_coefficients(Codec("4:2:0").encode(photo, QTables(tables)))
    for name in ("cjpeg", "magick", "jpeglib", "mozjpeg", "ffmpeg"):
        theirs = read_coefficients(encoder_or_skip(name).encode(photo, QTables(tables), "4:2:0"))
        if name in ("mozjpeg", "ffmpeg"):
            assert np.count_nonzero(theirs[0]) < 0.95 * np.count_nonzero(own[0])
        else:
            assert all(np.array_equal(a, b) for a, b in zip(own, theirs, strict=True))


@pytest.mark.parametrize("name", NO_ROUTE)
def test_encoders_without_a_route_say_why(name: str) -> None:
    with pytest.raises(EncoderError, match=f"^encoder {name} takes no tables of your own: {NO_ROUTE[name][:10]}"):
        find_encoder(name)


def program(folder: Path, name: str, *lines: str) -> None:
    """A shell script under the name of an encoder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


def test_a_convert_that_is_not_imagemagicks_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "a", "convert", "echo 'convert: a volume converter'")
    program(tmp_path / "a", "magick", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "a"))
    with pytest.raises(EncoderError, match="encoder magick is not installed here"):
        find_encoder("magick")
    program(tmp_path / "b", "convert", "echo 'Version: ImageMagick 9.9 https://imagemagick.org'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    assert find_encoder("magick").version == "ImageMagick 9.9"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "b")
    assert module._programs("convert")[0][0] == str(tmp_path / "b" / "convert")


def test_cjpeg_and_mozjpegs_cjpeg_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "a", "cjpeg", "echo mozjpeg version 4.0.3 >&2")
    program(tmp_path / "b", "cjpeg", "echo libjpeg-turbo version 9 >&2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    assert find_encoder("mozjpeg").version == "mozjpeg version 4.0.3"
    assert find_encoder("cjpeg").version == "libjpeg-turbo version 9"
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert "jpeglib" in find_encoder("mozjpeg").version
    with pytest.raises(EncoderError, match="encoder cjpeg is not installed here"):
        find_encoder("cjpeg")


def test_an_encoder_that_fails_or_hangs_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: RGB
) -> None:
    program(tmp_path, "fails", "echo first >&2", "echo 'no such option' >&2", "exit 3")
    program(tmp_path, "hangs", "exec sleep 60")
    program(tmp_path, "silent", "exit 0")
    program(tmp_path, "writes", "echo text >out.jpg")
    for name, message in (
        ("fails", "^x: .*fails failed with status 3: no such option$"),
        ("silent", "^x: .*No such file.*out.jpg"),
        ("writes", r"^x wrote not a JPEG file \(5 bytes, no SOI marker\)$"),
        ("hangs", "^x: .*hangs took more than 0.5 s$"),
    ):
        if name == "hangs":
            monkeypatch.setattr(module, "TIMEOUT", 0.5)
        with pytest.raises(EncoderError, match=message):
            module.verify(module._cjpeg_encoder("x", str(tmp_path / name), "1"), THREE, photo)


# ---- comparison -----------------------------------------------------------------------------------------------


def test_each_entry_that_differs_is_named(photo: RGB) -> None:
    changed = THREE.values.copy()
    changed[0, 2, 5] = 200
    changed[2, 7, 0] = 201
    header = read_header(Codec().encode(photo, QTables(changed)))
    assert differences(THREE, header) == (Difference(0, 2, 5, 22, 200), Difference(2, 7, 0, 8, 201))
    assert differences(QTables(changed), header) == ()
    grey = read_header(Codec().encode(photo, QTables(changed[:1])))
    assert {d.component for d in differences(THREE, grey)} == {0, 1, 2}


def test_entries_of_16_bits_are_shown(photo: RGB, tmp_path: Path) -> None:
    values = THREE.values.astype(int).tolist()
    values[1][0][1] = 1000
    Image.fromarray(photo).save(tmp_path / "x.jpg", qtables=np.reshape(values, (3, 64)).tolist())
    header = read_header((tmp_path / "x.jpg").read_bytes())
    assert differences(THREE, header) == (Difference(1, 0, 1, 63, 1000),)


def test_a_component_without_a_table_is_an_error(photo: RGB) -> None:
    header = read_header(Codec().encode(photo, THREE))
    with pytest.raises(EncoderError, match="component 2 of the file has no table"):
        differences(THREE, replace(header, uses=(0, 1, None)))


# ---- tables out of any file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_any_jpeg_is_read(photo: RGB, subsampling: Subsampling) -> None:
    for count in (1, 2, 3):
        tables = QTables(THREE.values[:count])
        assert read_tables(Codec(subsampling, "progressive").encode(photo, tables)) == (tables, "jpeg")
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    large = Codec("4:4:4").encode(noise, QTables.flat(1))
    assert len(large) > MAX_TABLE_FILE_BYTES
    assert read_tables(large) == (QTables.flat(1), "jpeg")


def table_file(form: str, count: int = 3) -> bytes:
    written = FORMATS[form].write(QTables(THREE.values[: min(count, FORMATS[form].most)]))
    return written if isinstance(written, bytes) else written.encode()


@pytest.mark.parametrize("form", FORMATS)
def test_the_format_is_told_by_the_content_or_by_name(form: str) -> None:
    for count in range(1, FORMATS[form].most + 1):
        expected = QTables(THREE.values[:count]), "jpeg" if form == "donor" else form
        assert read_tables(table_file(form, count), "t") == expected
        assert read_tables(table_file(form, count), "t", form) == expected


def only_value_errors(data: bytes) -> None:
    """Whatever the bytes, as whatever format: tables, or one line that names the file."""
    for form in (None, *FORMATS):
        message = "some.file: "
        try:
            read_tables(data, "some.file", form)
        except ValueError as error:
            message = str(error)
        assert message.startswith("some.file: ")
        assert "\n" not in message


@given(st.binary(max_size=300))
@settings(max_examples=40)
def test_noise_is_refused_in_one_line(data: bytes) -> None:
    only_value_errors(data)
    for start in (b"\xff\xd8", b"\xff\xdb", b"\x93NUMPY\1\0", b"{", b"<quantization-tables", b"-intra_matrix "):
        only_value_errors(start + data)


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
@settings(max_examples=15)
def test_damaged_files_are_refused_in_one_line(form: str, data: st.DataObject) -> None:
    whole = table_file(form)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(len(whole), begin + 40)))
    words = st.sampled_from([b"{", b"[", b"<", b"#", b"/*", b"\n", b"9" * 20, b"NaN", b"'", b"\0", b"True"])
    middle = b"".join(data.draw(st.lists(st.one_of(words, st.binary(max_size=3)), max_size=6)))
    only_value_errors(whole[:begin] + middle + whole[end:])


@pytest.mark.parametrize(
    "data",
    [
        b"[" * MAX_TABLE_FILE_BYTES,
        b'{"values": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"values": [[[1e400, -1, NaN]]]}',
        b'{"values": {"a": [1]}, "order": "zigzag"}',
        b'{"values": [[1], [1, 2]], "order": "zigzag"}',
        b"<quantization-tables>" + b"<table slot='0'>" * 20_000,
        b"/*" * 200_000,
        b"{1," * 150_000,
        b"INTRA8X8_LUMA=" + b"\n" * 300_000,
        b"INTRA8X8_" + b"A" * 300_000,
        b"#" * 300_000,
        b"qtables" + b" " * 300_000,
        b"1 " * 200_000,
        "{}".encode("utf-16"),
        b"\x93NUMPY\1\0v\0" + b"{'descr': '<c16', 'fortran_order': False, 'shape': (64,), }".ljust(118) + b"\0" * 1024,
        b"\x93NUMPY\1\0v\0" + b"{'descr': '<u8', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(118),
        b"\x93NUMPY\1\0\x10\x27" + b"-" * 10_000,
        b"\xff\xd8" + b"\xff" * 300_000,
        b"\xff\xd8\xff\xd9",
        b"\xff\xdb\0\2" * 200_000,
    ],
)  # fmt: skip
def test_hostile_files_are_refused_in_one_line(data: bytes) -> None:
    only_value_errors(data)


# ---- the commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_export_and_import_round_trip(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = QTables(THREE.values[:2])
    tables.save(tmp_path / "t.json")
    file = tmp_path / f"out{FORMATS[form].suffix}"
    run("export", tmp_path / "t.json", "--to", form, "-o", file)
    said = capsys.readouterr()
    assert said.out == ""
    for line in (f"wrote {file}", FORMATS[form].use(tables, str(file)), *FORMATS[form].caveats):
        assert line in said.err
    run("import", file, "-o", tmp_path / "back.json")
    assert QTables.load(tmp_path / "back.json") == tables
    capsys.readouterr()
    run("import", file, "--format", form)
    assert QTables.from_dict(json.loads(capsys.readouterr().out)) == tables


def test_import_says_how_it_read_what_can_be_read_in_two_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = THREE.values[:2].reshape(2, 64).tolist()
    for text, said in (
        (str(dict(enumerate(flat))), "read in natural order (row by row), as Pillow 8.3 and later has them"),
        (f"{{0: array('B', {flat[0]})}}", "read in zigzag order, as Pillow before 8.3 has them"),
        (
            f"-q:v 8 -intra_matrix {','.join(map(str, flat[0]))}",
            "in ffmpeg's files the first entry of each table (DC) is",
        ),
        (f"qtables = {flat}", ""),
        (f"-q:v 8 -intra_matrix {','.join(['8'] * 64)}", ""),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        run("import", "-", "-o", tmp_path / "t.json")
        first, *rest = capsys.readouterr().err.splitlines()
        assert first.startswith("-: ")
        assert len(rest) == 1 + bool(said)
        assert said in rest[0]
        (tmp_path / "t.json").unlink()


def test_files_that_exist_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.json").write_text("mine")
    THREE.save(tmp_path / "three.json")
    for command in (("export", "flat:3", "--to", "json"), ("import", tmp_path / "three.json")):
        assert "t.json exists already; it is not overwritten" in failure(capsys, *command, "-o", tmp_path / "t.json")
    assert (tmp_path / "t.json").read_text() == "mine"


def run(*arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as exited:
        main([str(a) for a in arguments])
    assert not exited.value.code


def failure(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line of a command that fails."""
    with pytest.raises(SystemExit) as exited:
        main([str(a) for a in arguments])
    assert exited.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qtable: ")]
    assert len(lines) == 1
    return lines[0]


def test_mistakes_get_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    THREE.save(tmp_path / "three.json")
    (tmp_path / "photo.txt").write_text("no photo")
    (tmp_path / "empty").write_bytes(b"")
    for message, *arguments in (
        ("holds luma and chroma tables; these are 3", "export", tmp_path / "three.json", "--to", "go"),
        ("photo.txt: no format is recognised", "import", tmp_path / "photo.txt"),
        ("empty: no format is recognised", "import", tmp_path / "empty"),
        ("format 'gif' is unknown", "import", tmp_path / "three.json", "--format", "gif"),
        ("three.json: as a dqt file: no whole", "import", tmp_path / "three.json", "--format", "dqt"),
        ("No such file", "import", tmp_path / "nowhere"),
        ("name an --encoder (cjpeg", "verify", "quality:50"),
        ("name an --encoder (cjpeg", "verify", "quality:50", "--all", "--encoder", "pillow"),
        ("encoder 'jpg' is unknown", "verify", "quality:50", "--encoder", "jpg"),
        ("encoder libvips takes no tables", "verify", "quality:50", "--encoder", "libvips"),
        ("not a photo that can be read", "verify", "flat:9", "--encoder", "pillow", "--image", tmp_path / "photo.txt"),
    ):
        assert message in failure(capsys, *arguments)


def test_verify_shows_what_came_back(tmp_path: Path, photo: RGB, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    THREE.save(tmp_path / "t.json")
    options = ("--image", tmp_path / "photo.png", "--subsampling", "4:4:4")
    run("verify", tmp_path / "t.json", "--encoder", "pillow", "--encoder", "jpeglib", *options)
    shown = capsys.readouterr().out
    own = len(Codec("4:4:4").encode(photo, THREE))
    assert f"pillow: Pillow {PIL.__version__}\n  tables equal; 4:4:4; {own:,} bytes, +0.0%" in shown
    assert shown.count("tables equal") == 2
    run("verify", tmp_path / "t.json", "--encoder", "pillow", "--json", *options)
    (verdict,) = json.loads(capsys.readouterr().out)
    assert (verdict["encoder"], verdict["differences"], verdict["own_bytes"]) == ("pillow", [], own)


def test_verify_fails_where_an_entry_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(folder: Path, tables: QTables, subsampling: Subsampling) -> None:
        image = np.asarray(Image.open(folder / "photo.ppm"))
        scaled = QTables(np.maximum(tables.values // 2, 1))  # as a tool does that applies a quality
        (folder / "out.jpg").write_bytes(Codec(subsampling).encode(image, scaled))

    monkeypatch.setitem(ENCODERS, "halves", lambda: Encoder("halves", "1", write))
    monkeypatch.setitem(ENCODERS, "absent", lambda: None)
    assert "not what was asked for: halves" in failure(capsys, "verify", "flat:9", "--encoder", "halves")
    with pytest.raises(SystemExit):
        main(["verify", "flat:9", "--encoder", "halves"])
    shown = capsys.readouterr().out
    assert "192 entries differ; 4:2:0" in shown
    assert "  Cb row 3 column 5: wanted 9, got 4\n" in shown
    with pytest.raises(SystemExit):
        main(["verify", "flat:8", "--all"])
    said = capsys.readouterr()
    assert "encoder absent is not installed here" in said.err
    assert "pillow: Pillow" in said.out
    assert "not what was asked for: halves" in " ".join(said.err.split())
