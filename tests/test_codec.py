from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtable.codec import (
    DECODERS,
    ENTROPIES,
    RGB,
    SUBSAMPLINGS,
    Codec,
    Entropy,
    JpegError,
    Subsampling,
    decode,
    decoder,
    read_coefficients,
    read_header,
)
from qtable.tables import QTables

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
