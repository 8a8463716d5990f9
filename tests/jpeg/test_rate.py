"""Exact sizes against libjpeg-turbo's own files; proxies against closed forms, exact sizes and real bytes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from qtable.jpeg.calibration import Calibrated, calibrated
from qtable.jpeg.codec import RGB, SUBSAMPLINGS, Codec, Entropy, Subsampling
from qtable.jpeg.coefficients import read_coefficients
from qtable.jpeg.dct import coefficients, quantize
from qtable.jpeg.frame import Planes
from qtable.jpeg.header import read_header
from qtable.jpeg.huffman import STANDARD_HUFFMAN, Huffman, _huffman_sizes, optimal_huffman
from qtable.jpeg.proxies import (
    PROXIES,
    WINDOW,
    Proxy,
    RunLength,
    inverse_l1,
    l1,
    laplacian,
    log2,
    nonzeros,
    soft_histogram,
)
from qtable.jpeg.scan import _entries, _order, _row, _scan
from qtable.jpeg.size import exact_bytes, header_bytes
from qtable.jpeg.tables import QTables

ENTROPIES: tuple[Entropy, ...] = ("standard", "optimized")
every_subsampling = pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
every_entropy = pytest.mark.parametrize("entropy", ENTROPIES)


@pytest.fixture(scope="module")
def photos() -> list[RGB]:
    """Pieces of photographs, 120 x 168, and one of noise: the files with the most 0xFF."""
    from skimage import data

    corners = {"astronaut": (40, 170), "chelsea": (60, 90), "coffee": (140, 200), "rocket": (100, 300)}
    whole = {name: getattr(data, name)() for name in corners}
    pieces = [np.ascontiguousarray(whole[name][y : y + 120, x : x + 168]) for name, (y, x) in corners.items()]
    return [*pieces, np.random.default_rng(0).integers(0, 256, (120, 168, 3), dtype=np.uint8)]


def tables_of_every_kind() -> list[QTables]:
    """Coarse to finest, asymmetric, jagged; one, two and three tables."""
    rng = np.random.default_rng(1)
    rising = np.arange(1, 65).reshape(8, 8)
    return [
        *(QTables.standard(quality) for quality in (5, 50, 95)),
        QTables.flat(1),
        QTables(np.stack([rising, 65 - rising])),
        QTables(rng.integers(1, 256, (3, 8, 8))),
    ]


def coefficients_of(files: list[bytes]) -> Planes:
    """Quantized coefficients of files of equal sizes, as one batch."""
    read = zip(*(read_coefficients(file) for file in files), strict=True)
    return Planes(*(torch.from_numpy(np.stack(component)) for component in read))


def batch_of(photos: list[RGB]) -> Tensor:
    """float [n, 3, h, w], 0..255."""
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float()


def steps_of(tables: QTables) -> Tensor:
    """float [3, 8, 8]."""
    return torch.from_numpy(tables.components()).float()


# ---- exact size -----------------------------------------------------------------------------------------------


@every_entropy
@every_subsampling
def test_exact_size_equals_the_file(photos: list[RGB], subsampling: Subsampling, entropy: Entropy) -> None:
    codec = Codec(subsampling, entropy)
    sizes = [(120, 168), (97, 131), (17, 33), (24, 8), (8, 24), (1, 1)]
    for (height, width), tables in itertools.product(sizes, tables_of_every_kind()):
        files = [codec.encode(np.ascontiguousarray(photo[:height, :width]), tables) for photo in photos]
        size = exact_bytes(coefficients_of(files), codec, tables.count)
        assert size.scan.tolist() == [read_header(file).scan_bytes for file in files]
        assert size.header.tolist() == [read_header(file).header_bytes for file in files]
        assert size.total.tolist() == [len(file) for file in files]


def test_the_files_compared_are_stuffed(photos: list[RGB]) -> None:
    files = [Codec(entropy="standard").encode(photo, QTables.flat(1)) for photo in photos]
    assert min(file.count(b"\xff\x00") for file in files) > 20


@every_entropy
@every_subsampling
def test_exact_size_from_pixels(photos: list[RGB], subsampling: Subsampling, entropy: Entropy) -> None:
    codec = Codec(subsampling, entropy)
    for tables in tables_of_every_kind():
        planes = quantize(coefficients(batch_of(photos), subsampling), tables)
        expected = [len(codec.encode(photo, tables)) for photo in photos]
        assert exact_bytes(planes, codec, tables.count).total.tolist() == expected


@every_entropy
def test_exact_size_of_imagenet_photos(shared: Path, entropy: Entropy) -> None:
    codec, tables = Codec("4:2:0", entropy), QTables.standard(30)
    for path in sorted((shared / "data" / "imagenet").glob("*.webp"))[::20]:
        file = codec.encode(np.asarray(Image.open(path).convert("RGB")), tables)
        assert int(exact_bytes(coefficients_of([file]), codec).total) == len(file), path.name


def test_batches_are_worked_through_in_parts(photos: list[RGB], monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec()
    planes = coefficients_of([codec.encode(photo, QTables.standard()) for photo in photos])
    whole = exact_bytes(planes, codec).total
    monkeypatch.setattr("qtable.jpeg.size.CHUNK", 1)
    assert torch.equal(exact_bytes(planes, codec).total, whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: sizes on a GPU are not tested here")
@every_entropy
def test_exact_size_and_proxies_are_the_same_on_cuda(photos: list[RGB], entropy: Entropy) -> None:
    codec, steps = Codec("4:2:0", entropy), steps_of(QTables.standard())
    planes = coefficients(batch_of(photos), "4:2:0")
    on_gpu = Planes(*(plane.cuda() for plane in planes))
    levels, levels_on_gpu = (quantize(p, QTables.standard()) for p in (planes, on_gpu))
    assert torch.equal(exact_bytes(levels, codec).total, exact_bytes(levels_on_gpu, codec).total.cpu())
    proxies: list[Proxy] = [*PROXIES.values(), RunLength(codec)]
    for proxy in proxies:
        torch.testing.assert_close(proxy(planes, steps), proxy(on_gpu, steps.cuda()).cpu(), rtol=1e-4, atol=1)


def huffman_tables(file: bytes) -> list[Huffman]:
    """A file's Huffman tables, in the order of their segments."""
    tables, at = [], 2
    while file[at + 1] != 0xDA:
        length = int.from_bytes(file[at + 2 : at + 4], "big")
        if file[at + 1] == 0xC4:
            tables.append(Huffman(list(file[at + 5 : at + 21]), list(file[at + 21 : at + 2 + length])))
        at += 2 + length
    return tables


def test_standard_huffman_tables_are_the_files(photo: RGB) -> None:
    file = Codec(entropy="standard").encode(photo, QTables.standard())
    assert huffman_tables(file) == list(STANDARD_HUFFMAN)


def staircase() -> RGB:
    """Grey 1536 x 1536 whose 22 kinds of block are Fibonacci numbers frequent: code lengths grow one by one.

    Kind j is one cosine; at flat:1 it has one AC level of a size and after a run that no other kind has.
    """
    frequencies = [1, 1]
    while len(frequencies) < 22:
        frequencies.append(frequencies[-1] + frequencies[-2])
    kinds = np.repeat(np.arange(22), frequencies)[: 192 * 192]
    kinds = np.concatenate([kinds, np.full(192 * 192 - len(kinds), 21)])
    x = np.arange(8)
    basis = np.cos((2 * x[:, None] + 1) * np.arange(8) * np.pi / 16) / 2  # [x, frequency]
    blocks = [60 * 2 ** -(j % 4) * np.outer(basis[:, j // 4], basis[:, 7 - j // 4]) for j in range(22)]
    grey = np.round(128 + np.stack(blocks)[kinds]).reshape(192, 192, 8, 8).transpose(0, 2, 1, 3).reshape(1536, 1536)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def test_optimal_huffman_equals_libjpegs_ties_and_long_codes_included(photos: list[RGB]) -> None:
    codec, longest = Codec("4:4:4", "optimized"), 0
    for photo, tables in [(p, QTables.standard(q)) for p in photos for q in (10, 60, 98)] + [
        (staircase(), QTables.flat(1))
    ]:
        file = codec.encode(photo, tables)
        planes = coefficients_of([file])
        order = _order(planes, "4:4:4")
        row = _row(planes)
        entries = _entries(row != 0, order)
        counts = _scan(entries.at, row[0, entries.position], entries.shape).counts().numpy().reshape(4, 256)
        assert [optimal_huffman(c) for c in counts] == huffman_tables(file)
        assert int(exact_bytes(planes, codec, tables.count).total) == len(file)
        longest = max(longest, *(max(_huffman_sizes(c).values()) for c in counts))
    assert longest > 16  # so that codes had to be shortened


def test_huffman_codes_too_long_for_libjpeg_are_refused() -> None:
    frequencies = np.zeros(256, np.int64)
    frequencies[:2] = 1, 2
    for i in range(2, 40):
        frequencies[i] = frequencies[i - 1] + frequencies[i - 2]
    with pytest.raises(ValueError, match="Huffman code of 40 bits; libjpeg allows 32"):
        optimal_huffman(frequencies)


def test_what_has_no_exact_size_is_refused() -> None:
    planes = Planes(torch.zeros(1, 2, 2, 8, 8), torch.zeros(1, 1, 1, 8, 8), torch.zeros(1, 1, 1, 8, 8))
    with pytest.raises(ValueError, match="not for progressive"):
        exact_bytes(planes, Codec(entropy="progressive"))
    with pytest.raises(ValueError, match="2 x 2 luma and 1 x 1 chroma blocks are not a photo in 4:4:4"):
        exact_bytes(planes, Codec("4:4:4"))
    for shape in [(2, 3), (3, 2), (2, 0), (0, 2)]:
        with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]} luma and 1 x 1 chroma blocks are not a photo"):
            exact_bytes(planes._replace(y=torch.zeros(1, *shape, 8, 8)), Codec())
    with pytest.raises(ValueError, match="Cb has 1 x 1 blocks and Cr 1 x 2"):
        exact_bytes(planes._replace(cr=torch.zeros(1, 1, 2, 8, 8)), Codec())
    planes.y[0, 0, 0, 3, 3] = 1024
    with pytest.raises(ValueError, match="a level of 1024: JPEG codes AC up to 1023"):
        exact_bytes(planes, Codec())


# ---- proxies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROXIES)
def test_every_proxy_falls_with_the_steps_and_has_gradients(name: str, photos: list[RGB]) -> None:
    proxy = PROXIES[name]
    planes = coefficients(batch_of(photos), "4:2:0")
    estimates = [proxy(planes, steps_of(QTables.standard(quality))) for quality in (5, 20, 50, 80, 95)]
    assert all(estimate.shape == (len(photos),) and bool(estimate.isfinite().all()) for estimate in estimates)
    assert bool((torch.stack(estimates).diff(dim=0) > 0).all())
    tracked = Planes(*(plane.clone().requires_grad_() for plane in planes))
    for tables in (QTables.flat(1), QTables.standard(), QTables.flat(255)):
        steps = steps_of(tables).requires_grad_()
        gradients = torch.autograd.grad(proxy(tracked, steps).sum(), [steps, *tracked], allow_unused=name == "1/L1")
        assert all(bool(g.isfinite().all()) for g in gradients if g is not None)
        assert float(gradients[0].sum()) < 0


def planes_of(values: npt.ArrayLike) -> Planes:
    """One photo of [1, blocks] luma blocks that hold `values`, [blocks, 64] natural order; chroma is empty (zero)."""
    y = torch.as_tensor(np.asarray(values), dtype=torch.float32).reshape(1, 1, -1, 8, 8)
    return Planes(y, torch.zeros_like(y), torch.zeros_like(y))


def test_simple_proxies_equal_their_formulas() -> None:
    planes, steps = planes_of([[8, -16, 3] + [0] * 61]), torch.full((3, 8, 8), 4.0)
    assert float(inverse_l1(planes, steps)) == 1 / 4
    assert float(l1(planes, steps)) == 2 + 4 + 0.75
    assert float(log2(planes, steps)) == pytest.approx(np.log2(3) + np.log2(5) + np.log2(1.75))
    assert float(nonzeros(planes, steps)) == 3
    assert float(nonzeros(planes, steps * 1.5)) == pytest.approx(2.5)  # 3 / 6 is on the threshold


@pytest.mark.parametrize("scale", [0.05, 0.4, 3, 40])
def test_laplacian_entropy_equals_its_sum(scale: float) -> None:
    r = np.exp(-1 / scale)
    m = np.arange(1, 4000)
    tail = np.exp(-0.5 / scale) * (1 - r) * r ** (m - 1) / 2
    p = np.concatenate([[1 - np.exp(-0.5 / scale)], tail, tail])
    p = p[p > 0]
    blocks = np.zeros((6, 64))
    blocks[:, 10] = [scale, -scale] * 3  # mean |F| / q = scale
    assert float(laplacian(planes_of(blocks), torch.ones(3, 8, 8))) == pytest.approx(
        -6 * (p * np.log2(p)).sum(), rel=1e-3
    )


def test_soft_histogram_of_whole_levels_is_their_entropy() -> None:
    blocks = np.zeros((8, 64))
    blocks[:, 5] = [0, 0, 0, 0, 1, 1, -2, 3]  # 4, 2, 1, 1 of 8
    assert float(soft_histogram(planes_of(blocks), torch.ones(3, 8, 8))) == pytest.approx(8 * 1.75)


@every_subsampling
def test_run_length_counts_the_scan(photos: list[RGB], subsampling: Subsampling) -> None:
    planes = coefficients(batch_of(photos), subsampling)
    most: dict[Entropy, float] = {"standard": 0.02, "optimized": 0.04}  # files from 600 bytes on
    jagged = np.random.default_rng(2).integers(1, 200, (2, 8, 8))  # long runs: the codes that cause stuffing
    for entropy, tables in itertools.product(ENTROPIES, map(QTables, [np.ones((2, 8, 8)), jagged])):
        codec = Codec(subsampling, entropy)
        size = exact_bytes(quantize(planes, tables), codec)
        huffman_symbols = size.header - header_bytes(2, torch.tensor(0))
        exact = size.scan if entropy == "standard" else size.scan + huffman_symbols
        estimate = RunLength(codec)(planes, steps_of(tables)) / 8
        assert float((estimate / exact - 1).abs().max()) < most[entropy]


def test_gradient_of_an_ac_coefficient_is_what_its_threshold_is_worth() -> None:
    """Annex K's code lengths do not move, so the change of the value across a threshold is the gradient x window."""
    rng = np.random.default_rng(3)
    proxy, steps = RunLength(Codec("4:4:4", "standard")), torch.ones(3, 8, 8)
    signs = set()
    for trial in range(120):
        levels = rng.integers(-4, 5, (3, 64)) * (rng.random((3, 64)) < rng.choice([0.02, 0.1, 0.5]))
        block, k = int(rng.integers(3)), 63 if trial % 4 == 0 else int(rng.integers(1, 64))
        magnitude = rng.choice([0.5, 0.5, 1.5, 2.5, 3.5]) * rng.choice([-1, 1])

        def bits(z: float) -> tuple[float, float]:
            planes = planes_of(levels)  # noqa: B023
            planes.y[0, 0, block].view(64)[k] = z  # noqa: B023
            planes.y.requires_grad_()
            value = proxy(planes, steps).sum()
            (gradient,) = torch.autograd.grad(value, planes.y)
            return value.item(), gradient[0, 0, block].view(64)[k].item()  # noqa: B023

        (low, slope), (high, slope_above) = (bits(magnitude * (1 + e)) for e in (-1e-3, 1e-3))
        worth = slope * np.sign(magnitude) * WINDOW
        assert high - low == pytest.approx(worth, abs=1e-3), (trial, block, k, magnitude)
        assert slope == slope_above
        signs.add(np.sign(worth))
    assert signs == {-1, 0, 1}  # a level may save bits: it splits a run of 16, or it ends the block without an EOB


def test_gradient_of_dc_is_the_average_over_phases_of_its_rounding() -> None:
    proxy, steps = RunLength(Codec("4:4:4", "standard")), torch.ones(3, 8, 8)
    phases = (np.arange(400) + 0.5) / 400

    def average(difference: float) -> float:
        dc = torch.zeros(400, 1, 2, 8, 8)
        dc[:, 0, :, 0, 0] = torch.as_tensor(np.stack([5 + phases, 5 + phases + difference], 1))
        return proxy(Planes(dc, torch.zeros_like(dc), torch.zeros_like(dc)), steps).mean().item()

    for difference in (0.3, 0.9, 1.6, -0.4, -3.7, 7.5):
        planes = planes_of([[5.2] + [0] * 63, [5.2 + difference] + [0] * 63])
        planes.y.requires_grad_()
        (gradient,) = torch.autograd.grad(proxy(planes, steps).sum(), planes.y)
        slope = (average(difference + 0.05) - average(difference - 0.05)) / 0.1
        assert float(gradient[0, 0, 1, 0, 0]) == pytest.approx(slope, abs=0.1)


def real_bytes(photos: list[RGB], tables: QTables, codec: Codec) -> float:
    """Mean bytes of whole files."""
    return float(np.mean([len(codec.encode(photo, tables)) for photo in photos]))


@every_entropy
@pytest.mark.parametrize("tables", [QTables.standard(), QTables(np.random.default_rng(2).integers(4, 90, (1, 8, 8)))])
def test_run_length_gradient_follows_real_bytes(photos: list[RGB], entropy: Entropy, tables: QTables) -> None:
    """Finite differences of real files over the 64 luma frequencies; one luma table moves, chroma stays."""
    codec, photos = Codec("4:2:0", entropy), photos[:4]
    base = tables.components()[[0, 2]].astype(int)
    slopes = np.zeros((8, 8))
    for u, v in np.ndindex(8, 8):
        moved = [base.copy(), base.copy()]
        apart = max(1, round(base[0, u, v] * 0.15))
        moved[0][0, u, v] = max(1, base[0, u, v] - apart)
        moved[1][0, u, v] += apart
        low, high = (real_bytes(photos, QTables(m), codec) for m in moved)
        slopes[u, v] = (high - low) / np.log(moved[1][0, u, v] / moved[0][0, u, v])
    luma = torch.as_tensor(base[0]).float().log().requires_grad_()
    chroma = torch.as_tensor(base[1]).float()
    estimate = RunLength(codec)(coefficients(batch_of(photos), "4:2:0"), torch.stack([luma.exp(), chroma, chroma]))
    (gradient,) = torch.autograd.grad(estimate.mean() / 8, luma)
    ours = gradient.numpy()
    cosine = (ours * slopes).sum() / np.linalg.norm(ours) / np.linalg.norm(slopes)
    assert cosine > 0.95
    assert 0.85 < ours.sum() / slopes.sum() < 1.15


def family(rng: np.random.Generator) -> list[QTables]:
    """102 table pairs: Annex K's, sorted along the zigzag, perturbed, flat and jagged random ones."""
    sorted_ = np.sort(rng.uniform(2, rng.uniform(30, 200, (24, 1, 1)), (24, 2, 64)), axis=2)
    noise = np.exp(rng.normal(0, 0.5, (24, 2, 8, 8)))
    perturbed = [QTables.standard(int(rng.integers(15, 90))).values * n for n in noise]
    jagged = np.abs(rng.standard_normal((24, 2, 8, 8))) * rng.uniform(10, 80, (24, 1, 1, 1))
    return [
        *(QTables.standard(quality) for quality in range(8, 97, 5)),
        *(QTables.from_zigzag(np.round(t)) for t in sorted_),
        *(QTables(np.clip(np.round(t), 1, 255)) for t in (*perturbed, *jagged)),
        *(QTables(np.full((2, 8, 8), step)) for step in range(4, 61, 5)),
    ]


@every_entropy
def test_run_length_predicts_real_bytes_over_a_whole_family_of_tables(photos: list[RGB], entropy: Entropy) -> None:
    from scipy.stats import kendalltau

    codec, photos = Codec("4:2:0", entropy), photos[:4]
    tables = family(np.random.default_rng(4))
    assert len(tables) >= 100
    planes = coefficients(batch_of(photos), "4:2:0")
    real = np.array([real_bytes(photos, t, codec) for t in tables])
    proxy = RunLength(codec)
    estimates = np.array([proxy(planes, steps_of(t)).mean().item() for t in tables])
    predicted = calibrated(proxy, estimates, real).to_bytes(torch.from_numpy(estimates)).numpy()
    band = np.abs(real / np.median(real) - 1) <= 0.16
    assert 1 - ((predicted - real) ** 2).sum() / ((real - real.mean()) ** 2).sum() >= 0.995
    assert np.abs(predicted / real - 1).mean() <= 0.01
    assert band.sum() >= 10
    assert kendalltau(predicted[band], real[band]).statistic >= 0.95


# ---- calibration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [False, True])
def test_calibration_finds_the_map_and_is_refitted(log: bool) -> None:
    proxy: Proxy = l1
    x = np.array([10.0, 20, 50, 80])
    y, later = (4 * x**1.5, 5 * x**0.5) if log else (300 + 0.2 * x, 100 + 0.4 * x)
    fitted = calibrated(proxy, x, y, log)
    np.testing.assert_allclose(fitted.to_bytes(torch.from_numpy(x)).numpy(), y)
    refitted = fitted.refitted(x, later)
    assert refitted.log == log
    np.testing.assert_allclose(refitted.to_bytes(torch.from_numpy(x)).numpy(), later)
    steps = torch.full((3, 8, 8), 4.0, requires_grad=True)
    estimate = refitted(planes_of([[8, -16, 3] + [0] * 61]), steps)
    assert estimate.item() == pytest.approx(5 * 6.75**0.5 if log else 100 + 0.4 * 6.75)
    assert float(torch.autograd.grad(estimate.sum(), steps)[0][0, 0, 0]) < 0


def test_calibration_refuses_what_no_line_fits() -> None:
    with pytest.raises(ValueError, match="two that differ"):
        calibrated(l1, [5, 5], [100, 110])
    with pytest.raises(ValueError, match="2 estimates and 1 sizes"):
        calibrated(l1, [5, 6], [100])
    with pytest.raises(ValueError, match="two that differ"):
        Calibrated(l1, 0, 1).refitted([1, np.nan], [100, 110])
    with pytest.raises(ValueError, match="above 0; the smallest is 0"):
        calibrated(l1, [0, 6], [100, 110], log=True)
