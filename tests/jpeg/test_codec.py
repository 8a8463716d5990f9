from __future__ import annotations

import io
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qtable.encoders.formats import to_cjpeg
from qtable.jpeg.codec import DECODERS, ENTROPIES, RGB, SUBSAMPLINGS, Codec, Entropy, Subsampling, decode, decoder
from qtable.jpeg.coefficients import read_coefficients
from qtable.jpeg.header import read_header
from qtable.jpeg.markers import JpegError
from qtable.jpeg.tables import ZIGZAG, QTables

every_subsampling = pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
every_entropy = pytest.mark.parametrize("entropy", ENTROPIES)


@every_entropy
@every_subsampling
@pytest.mark.parametrize("count", [1, 2, 3])
def test_tables_sampling_and_mode_read_back(
    photo: RGB, asymmetric: QTables, subsampling: Subsampling, entropy: Entropy, count: int
) -> None:
    values = np.stack([*asymmetric.values, asymmetric.values[0].T])
    tables = QTables(values[:count])
    file = Codec(subsampling, entropy).encode(photo, tables)
    header = read_header(file)
    assert header.tables == tables
    assert header.subsampling == subsampling
    assert header.progressive == (entropy == "progressive")
    assert (header.width, header.height) == (photo.shape[1], photo.shape[0])
    assert header.header_bytes + header.scan_bytes == len(file)


@every_entropy
@every_subsampling
def test_every_route_decodes_to_equal_pixels(
    photo: RGB, asymmetric: QTables, subsampling: Subsampling, entropy: Entropy
) -> None:
    file = Codec(subsampling, entropy).encode(photo, asymmetric)
    pixels = [decoder(route)[1](file) for route in ("simplejpeg", "pillow")]
    try:
        pixels.append(decoder("turbojpeg")[1](file))
    except ImportError:
        assert decoder()[0] == "simplejpeg"
    assert all(np.array_equal(p, Codec().decode(file)) for p in pixels)
    assert set(DECODERS) == {"turbojpeg", "simplejpeg", "pillow"}


def test_entropy_coding_is_lossless_and_optimized_is_smaller(photo: RGB) -> None:
    files = {entropy: Codec("4:2:0", entropy).encode(photo, QTables.standard(60)) for entropy in ENTROPIES}
    assert len({decode(file).tobytes() for file in files.values()}) == 1
    assert len(files["optimized"]) < len(files["standard"])


@every_entropy
def test_fine_tables_on_noise_do_not_break_the_output_buffer(entropy: Entropy) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (341, 256, 3), dtype=np.uint8)
    for step in (1, 4):
        file = Codec("4:4:4", entropy).encode(noise, QTables.flat(step))
        assert decode(file).shape == noise.shape


def test_no_byte_depends_on_threads(photo: RGB, asymmetric: QTables) -> None:
    photos = [np.ascontiguousarray(photo[i:]) for i in range(40)]
    alone = [Codec().encode(p, asymmetric) for p in photos]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda p: Codec().encode(p, asymmetric), photos)) == alone


def test_coefficients_of_a_flat_grey_photo() -> None:
    grey = np.full((20, 36, 3), 200, np.uint8)
    y, cb, cr = read_coefficients(Codec("4:2:0").encode(grey, QTables.flat(16)))
    assert y.shape == (3, 5, 8, 8)
    assert cb.shape == cr.shape == (2, 3, 8, 8)
    assert (y[..., 0, 0] == (200 - 128) * 8 // 16).all()
    assert not y.reshape(-1, 64)[:, 1:].any()
    assert not cb.any()
    assert not cr.any()


def test_coefficients_tell_horizontal_from_vertical() -> None:
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 255  # changes from column to column: horizontal frequencies, row 0
    y, _, _ = read_coefficients(Codec("4:4:4").encode(stripes, QTables.flat(1)))
    assert np.abs(y[0, 0, 0, 1:]).max() > 100
    assert np.abs(y[0, 0, 1:, 0]).max() == 0


@pytest.mark.parametrize("keep", [0, 1, 2, 10, 300, 1000, -1, -2])
def test_truncated_files_are_refused(photo: RGB, keep: int) -> None:
    file = Codec().encode(photo, QTables.standard(80))[: keep or 0]
    with pytest.raises(JpegError):
        decode(file)
    with pytest.raises(JpegError):
        read_header(file)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_photo_are_refused(bad: RGB) -> None:
    with pytest.raises(JpegError):
        Codec().encode(bad, QTables.standard())


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="4:2:0"):
        Codec("4:1:1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="progressive"):
        Codec(entropy="arithmetic")  # type: ignore[arg-type]


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 600))
def test_header_reader_survives_damage(noise: bytes, at: int) -> None:
    good = Codec().encode(np.zeros((9, 9, 3), np.uint8), QTables.standard())
    for data in (noise, b"\xff\xd8" + noise, good[:at] + noise + good[at + len(noise) :]):
        try:
            header = read_header(data)
            assert header.header_bytes + header.scan_bytes == len(data)
        except JpegError:
            pass


# ---- what the header reader takes -----------------------------------------------------------------------------


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def dqt(slot: int, table: npt.NDArray[np.uint8]) -> bytes:
    """8 bits an entry. table: uint8 [8, 8]."""
    return segment(0xDB, bytes([slot]) + table.ravel()[ZIGZAG].tobytes())


def frame(marker: int, precision: int = 8, height: int = 16, width: int = 24, components: str = "01 11 00") -> bytes:
    """components: id, sampling factors and slot of each, in hexadecimal."""
    ids = bytes.fromhex(components)
    return segment(marker, struct.pack(">BHHB", precision, height, width, len(ids) // 3) + ids)


def scan(components: str = "01 00", rest: str = "00 3f 00") -> bytes:
    """A scan with stuffing and a restart marker. components: id and Huffman slots of each."""
    ids = bytes.fromhex(components)
    return segment(0xDA, bytes([len(ids) // 2]) + ids + bytes.fromhex(rest)) + b"\x5a\xff\x00\xff\xd0\x01"


FLAT = dqt(0, np.full((8, 8), 5, np.uint8))
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SMALL_FRAME = frame(0xC0, height=8, width=12) + scan()
HIERARCHICAL = frame(0xDE) + SMALL_FRAME + segment(0xDF, b"\x11") + frame(0xC5) + scan()


def cjpeg(photo: RGB, folder: Path, *options: str) -> bytes:
    """The file that the system's cjpeg writes; skips without it."""
    program = shutil.which("cjpeg")
    if program is None:
        pytest.skip("cjpeg is not installed (Debian: libjpeg-turbo-progs)")
    Image.fromarray(photo).save(folder / "photo.ppm")
    subprocess.run([program, *options, "-outfile", "out.jpg", "photo.ppm"], cwd=folder, check=True)
    return (folder / "out.jpg").read_bytes()


def test_each_component_has_the_table_that_its_slot_held_as_its_first_scan_began(
    tmp_path: Path, photo: RGB, asymmetric: QTables
) -> None:
    """One slot, defined anew before each scan, decodes to the same pixels as three slots."""
    tables = QTables(np.stack([*asymmetric.values, asymmetric.values[0].T]))
    (tmp_path / "tables.txt").write_text(to_cjpeg(tables))
    (tmp_path / "scans.txt").write_text("0;\n1;\n2;\n")
    options = ("-qtables", "tables.txt", "-qslots", "0,1,2", "-sample", "1x1", "-scans", "scans.txt")
    three = cjpeg(photo, tmp_path, *options)
    parts, scans = [], 0
    for s in read_header(three).segments:
        content = three[s.at : s.at + s.size + s.entropy_bytes]
        if s.marker == 0xDB:
            continue
        if s.marker == 0xC0:
            content = content[:-9] + bytes.fromhex("01 11 00 02 11 00 03 11 00")
        if s.marker == 0xDA:
            parts.append(dqt(0, tables.values[scans]))
            scans += 1
        parts.append(content)
    one = b"".join(parts)
    assert np.array_equal(decode(one), decode(three))
    header = read_header(one)
    assert header.uses == (0, 1, 2)
    assert header.tables == read_header(three).tables == tables
    assert np.array_equal(header.slots[0], tables.values[0])


def test_a_table_defined_after_a_components_first_scan_changes_nothing(photo: RGB, asymmetric: QTables) -> None:
    file = Codec("4:2:0", "progressive").encode(photo, asymmetric)
    third = [s.at for s in read_header(file).segments if s.marker == 0xDA][2]
    later = file[:third] + dqt(0, np.full((8, 8), 99, np.uint8)) + file[third:]
    assert np.array_equal(decode(later), decode(file))
    header = read_header(later)
    assert header.tables == asymmetric
    assert [(q.slot, q.scan) for q in header.quantizations] == [(0, 0), (1, 0), (0, 2)]


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        (["-baseline"], "baseline sequential Huffman"),
        (["-progressive"], "progressive Huffman"),
        (["-arithmetic"], "extended sequential arithmetic"),
        (["-arithmetic", "-progressive"], "progressive arithmetic"),
        (["-quality", "5"], "extended sequential Huffman"),  # entries above 255
    ],
)
def test_coding_processes_of_cjpeg(tmp_path: Path, photo: RGB, options: list[str], mode: str) -> None:
    header = read_header(cjpeg(photo, tmp_path, *options))
    assert header.mode == mode
    assert (header.progressive, header.huffman) == ("progressive" in mode, "Huffman" in mode)


def test_scans_and_restarts_are_pillows(photo: RGB) -> None:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", restart_marker_blocks=3, subsampling="4:4:4")
    (only,) = read_header(file.getvalue()).scans
    assert (only.components, only.spectrum, only.restart_interval) == ((1, 2, 3), (0, 63), 3)
    header = read_header(Codec("4:4:4", "progressive").encode(photo, QTables.standard()))
    assert len(header.scans) == 10
    assert header.scans[0].approximation == (0, 1)
    assert sum(s.bytes for s in header.scans) == header.scan_bytes


@pytest.mark.parametrize(
    ("data", "mode", "refusal"),
    [
        (FLAT + frame(0xC1, precision=12) + scan(), "extended sequential Huffman", "12 bits a sample"),
        (frame(0xC3, precision=16) + scan(rest="01 00 00"), "lossless Huffman", "16 bits a sample"),
        (frame(0xCB) + scan(rest="01 00 00"), "lossless arithmetic", "a lossless arithmetic file"),
        (frame(0xC0) + scan(), "baseline sequential Huffman", "table 0 is used but not defined"),
        (FLAT, "tables alone", "tables alone"),
        (FLAT + frame(0xC0, components="011100 021100 031100 041100 051100") + scan("0100 0200"), "baseline", None),
        (FLAT + frame(0xC0, height=0) + scan() + segment(0xDC, b"\0\x10"), "baseline sequential Huffman", None),
        (FLAT + HIERARCHICAL, "hierarchical baseline sequential Huffman", None),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_valid_files_that_few_programs_write_are_read(data: bytes, mode: str, refusal: str | None) -> None:
    data = SOI + data + EOI
    header = read_header(data + b"more")
    assert header.mode.startswith(mode)
    assert header.header_bytes + header.scan_bytes == len(data) + 4
    assert header.trailing_bytes == 4
    if mode != "tables alone":
        assert (header.width, header.height) == (24, 16)
        assert header.scan_bytes == 6 * len(header.scans)
    if refusal is None:
        assert header.tables == QTables.flat(5)
    else:
        with pytest.raises(JpegError, match=refusal):
            _ = header.tables


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (FLAT + frame(0xC0) + frame(0xC0) + scan(), "a second frame at byte 84"),
        (FLAT + scan() + frame(0xC0), "a scan at byte 71 before the frame header"),
        (FLAT + frame(0xC0) + scan("07 00"), "of component 7, which the frame has not"),
        (FLAT + frame(0xC0), "without a scan"),
        (b"", "without a scan"),
        (FLAT + frame(0xC0, width=0) + scan(), "a frame of 0 x 16 pixels"),
        (FLAT + frame(0xC0, height=0) + scan(), "a frame of 24 x 0 pixels"),
        (FLAT + frame(0xC0, components="01 01 00") + scan(), "segment 0xc0 at byte 71 is malformed"),
        (FLAT + frame(0xC0, components="01 51 00") + scan(), "segment 0xc0 at byte 71 is malformed"),
        (FLAT + frame(0xC0, components="01 11 04") + scan(), "segment 0xc0 at byte 71 is malformed"),
        (FLAT + frame(0xC0) + b"\0" + scan(), "byte 84 begins 00 ff where a marker must be"),
        (FLAT + frame(0xC0) + scan("", ""), "segment 0xda at byte 84 is malformed"),
        (FLAT[:-9], "a truncated JPEG file"),
        (b"\xff\xdb\x00\x01", "segment 0xdb at byte 2 has length 1; allowed: 2..65535"),
        (segment(0xDB, FLAT[4:-1]), "segment 0xdb at byte 2 is malformed"),
        (segment(0xDB, b"\x20" + bytes(128)), "segment 0xdb at byte 2 is malformed"),
        (segment(0xC4, b"\x00" + bytes([1] * 16)), "segment 0xc4 at byte 2 is malformed"),
        (segment(0xC4, b"\x00" + bytes([17] + [16] * 15) + bytes(257)), "segment 0xc4 at byte 2 is malformed"),
        (segment(0xDD, b"\x00"), "segment 0xdd at byte 2 is malformed"),
        (b"\xff\xd8", "byte 2 begins ff d8 where a marker must be"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_malformed_files_are_refused_with_the_place(data: bytes, message: str) -> None:
    with pytest.raises(JpegError, match=message):
        read_header(SOI + data + EOI)
