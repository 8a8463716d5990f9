"""JPEGLayer: exact forward, closed-form gradients, tables that stay integers in 1..255 and can leave the bounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor

from qtable.jpeg import dct
from qtable.jpeg.codec import RGB, SUBSAMPLINGS, Codec, Subsampling
from qtable.jpeg.coefficients import read_coefficients
from qtable.jpeg.frame import Frame, Planes
from qtable.jpeg.layer import JPEGLayer
from qtable.jpeg.linear import relaxed
from qtable.jpeg.rounding import STE, Cubic, Rounding, Soft, SoftQuantizer, UniformNoise
from qtable.jpeg.tables import QTables


def noise(*shape: int, seed: int = 0) -> Tensor:
    """float32, integers 0..255."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).float()


def random_tables(count: int = 3, seed: int = 0, highest: int = 100) -> QTables:
    """Asymmetric; no entry at a bound, where gradients may be held back."""
    return QTables(np.random.default_rng(seed).integers(2, highest, (count, 8, 8)))


def as_batch(image: RGB) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()


# ---- the forward pass -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_pixels_and_coefficients_equal_libjpeg_turbos(
    photo: RGB, subsampling: Subsampling, count: int, training: bool
) -> None:
    codec, tables = Codec(subsampling), random_tables(count)
    layer = JPEGLayer(tables, codec).train(training)
    pixels, planes = layer(as_batch(photo))
    data = codec.encode(photo, layer.tables())
    assert layer.tables() == tables
    np.testing.assert_array_equal(pixels[0].permute(1, 2, 0).detach().numpy(), codec.decode(data))
    for ours, theirs in zip(planes, read_coefficients(data), strict=True):
        np.testing.assert_array_equal(ours[0].detach().numpy(), theirs)


@pytest.mark.parametrize(
    "rounding", ["soft", "jpeg-dl", "cubic", UniformNoise(torch.Generator())], ids=["soft", "jpeg-dl", "cubic", "noise"]
)
def test_evaluation_is_exact_under_every_surrogate(photo: RGB, rounding: str | Rounding) -> None:
    exact, layer = (JPEGLayer(random_tables(), Codec(), r) for r in ("ste", rounding))
    trained = layer(as_batch(photo))[0]
    evaluated = layer.eval()(as_batch(photo))[0]
    expected = exact(as_batch(photo))[0]
    assert torch.equal(evaluated, expected)
    assert not torch.equal(trained, expected)
    assert (trained - expected).abs().mean() < 30  # the same photo, though


def test_every_integer_table_survives_the_log_domain() -> None:
    for first in (1, 65, 129, 192):
        tables = QTables(np.arange(first, first + 64).reshape(1, 8, 8))
        assert JPEGLayer(tables, Codec()).tables() == tables


def test_the_forward_uses_the_integers_that_are_exported(photo: RGB) -> None:
    layer = JPEGLayer(random_tables(2), Codec())
    with torch.no_grad():
        layer.log_steps.add_(torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(1)))
    again = JPEGLayer(layer.tables(), Codec())
    assert layer.tables().count == 2
    assert torch.equal(layer(as_batch(photo))[0], again(as_batch(photo))[0])


def test_fractions_are_rounded_as_eight_bit_pixels_are_with_gradient_one() -> None:
    whole = noise(1, 3, 24, 24).clamp(1, 254)
    offset = torch.rand(whole.shape, generator=torch.Generator().manual_seed(1)) * 0.98 - 0.49
    layer, gradients = JPEGLayer(random_tables(), Codec()), []
    for rgb in (whole.clone().requires_grad_(), (whole + offset).requires_grad_()):
        pixels, _ = layer(rgb)
        pixels.square().sum().backward()
        assert rgb.grad is not None
        gradients.append((pixels.detach(), rgb.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])


class Outcome(NamedTuple):
    """What one forward and backward pass give: exact values, and gradients."""

    values: list[Tensor]
    gradients: list[Tensor]


def run(layer: JPEGLayer, batch: Tensor) -> Outcome:
    layer.zero_grad()
    rgb = batch.clone().requires_grad_()
    pixels, planes = layer(rgb)
    weights = torch.linspace(-1, 1, pixels[0].numel(), device=pixels.device).view(pixels[0].shape)
    (pixels.mul(weights).sum() + planes.y.square().sum() + planes.cr.sum()).backward()
    assert rgb.grad is not None
    assert layer.log_steps.grad is not None
    return Outcome([x.detach().cpu() for x in (pixels, *planes)], [rgb.grad.cpu(), layer.log_steps.grad.cpu()])


def assert_same(found: Outcome, expected: Outcome) -> None:
    for x, y in zip(found.values, expected.values, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    for x, y in zip(found.gradients, expected.gradients, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))


def test_threads_chunks_autocast_and_precision_settings_change_no_value() -> None:
    layer, batch = JPEGLayer(random_tables(), Codec()), noise(5, 3, 61, 83)
    expected = run(layer, batch)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert_same(run(layer, batch), expected)
    for chunk in (1, 12_000):
        dct.CHUNK_PIXELS = chunk  # type: ignore[misc]
        assert_same(run(layer, batch), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(run(layer, batch), expected)
    torch.set_float32_matmul_precision("medium")
    assert_same(run(layer, batch), expected)


def test_batches_change_no_value() -> None:
    layer, batch = JPEGLayer(random_tables(), Codec("4:2:2")), noise(4, 3, 33, 47)
    whole, singles = run(layer, batch), [run(layer, photo[None]) for photo in batch]
    values = [torch.cat(parts) for parts in zip(*(single.values for single in singles), strict=True)]
    rgb, steps = zip(*(single.gradients for single in singles), strict=True)
    assert_same(Outcome(values, [torch.cat(rgb), torch.stack(steps).sum(0)]), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_cuda_changes_no_value(subsampling: Subsampling) -> None:
    layer, batch = JPEGLayer(random_tables(), Codec(subsampling)), noise(5, 3, 61, 83)
    expected = run(layer, batch)
    assert_same(run(layer.cuda(), batch.cuda()), expected)


# ---- gradients against a plain float pipeline -----------------------------------------------------------------


def st(smooth: Tensor, value: Tensor) -> Tensor:
    """`value` with the gradient of `smooth`."""
    return smooth + (value - smooth).detach()


def block_dct(planes: Tensor, *, inverse: bool = False) -> Tensor:
    """Orthonormal 8 x 8 DCT of [n, c, 8r, 8c]; blocks [n, c, r, c, 8, 8] on the coefficients' side."""
    basis = torch.from_numpy(scipy.fft.dct(np.eye(8), axis=0, norm="ortho"))
    if inverse:
        blocks = torch.einsum("ui,ncrsuv,vj->ncrisj", basis, planes, basis)
        return blocks.flatten(4, 5).flatten(2, 3)
    return torch.einsum(
        "ui,ncrisj,vj->ncrsuv", basis, planes.view(*planes.shape[:2], planes.shape[2] // 8, 8, -1, 8), basis
    )


def plain_jpeg(
    rgb: Tensor, q: Tensor, subsampling: Subsampling, rounding: Rounding | None = None
) -> tuple[Tensor, list[Tensor]]:
    """JPEG in torch's own float functions, each value then replaced by libjpeg-turbo's, gradients kept.

    rgb: float64 [n, 3, h, w]. q: float64 [3, 8, 8]. Gradients everywhere those of the real-valued map; of round(): 1,
    or the given surrogate's.
    """
    height, width = rgb.shape[-2:]
    frame, tables = Frame(height, width, subsampling), QTables(q.detach().numpy())
    vertical, horizontal = frame.factors
    kr, kg, kb = 0.299, 0.587, 0.114
    r, g, b = rgb.unbind(1)
    y = kr * r + kg * g + kb * b
    ycc = torch.stack((y - 128, (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)), 1)

    def pad(x: Tensor, rows: int, columns: int) -> Tensor:
        return F.pad(x, (0, columns - x.shape[-1], 0, rows - x.shape[-2]), mode="replicate")

    small = pad(ycc[:, 1:], vertical * frame.chroma_size[0], horizontal * frame.padded_chroma[1])
    small = pad(F.interpolate(small, scale_factor=(1 / vertical, 1 / horizontal), mode="area"), *frame.padded_chroma)
    f = [block_dct(pad(ycc[:, :1], *frame.padded_luma))[:, 0], *block_dct(small).unbind(1)]
    exact = dct.coefficients(rgb.detach().float(), subsampling)
    f = [st(ours, value.double()) for ours, value in zip(f, exact, strict=True)]
    levels = [value.double() for value in dct.quantize(exact, tables)]
    z = [plane / step for plane, step in zip(f, q, strict=True)]
    k = [st(rounding(x) if rounding else x, value) for x, value in zip(z, levels, strict=True)]
    dequantized = [plane * step for plane, step in zip(k, q, strict=True)]

    canvas = torch.zeros(len(rgb), *frame.canvas_size, dtype=torch.float64)
    for plane, value in zip(frame.planes(canvas), levels, strict=True):
        plane.copy_(value)
    samples, pixels = dct.decode_levels(canvas, frame.tiled(q.detach()), frame)
    luma = st(block_dct(dequantized[0][:, None], inverse=True), frame.luma(samples)).clamp(-128, 127)
    chroma = st(block_dct(torch.stack(dequantized[1:], 1), inverse=True), frame.chroma(samples)).clamp(-128, 127)
    chroma = chroma[..., : frame.chroma_size[0], : frame.chroma_size[1]]
    if horizontal == 2:
        triangle = chroma.shape[-1] > 2
        scale = tuple(map(float, frame.factors))
        chroma = (
            F.interpolate(chroma, scale_factor=scale, mode="bilinear", align_corners=False)
            if triangle
            else F.interpolate(chroma, scale_factor=scale, mode="nearest")
        )[..., :height, :width]
    y, (cb, cr) = luma[:, 0, :height, :width] + 128, chroma.unbind(1)
    r, b = y + (2 - 2 * kr) * cr, y + (2 - 2 * kb) * cb
    g = (y - kr * r - kb * b) / kg
    return st(torch.stack((r, g, b), 1), pixels).clamp(0, 255), k


SIZES = [(1, 1), (3, 5), (17, 2), (8, 8), (16, 16), (33, 31), (40, 24)]


@pytest.mark.parametrize("rounding", [STE(), Cubic(exact=True)], ids=repr)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_gradients_equal_autograd_of_a_plain_float_pipeline(
    subsampling: Subsampling, size: tuple[int, int], rounding: Rounding
) -> None:
    """To the image, and to the logs of the tables; through pixels and through quantized coefficients; float64."""
    batch = noise(2, 3, *size).double()
    tables = random_tables()
    layer = JPEGLayer(tables, Codec(subsampling), rounding).double()
    ours = batch.clone().requires_grad_()
    theirs, q = batch.clone().requires_grad_(), torch.from_numpy(tables.values.astype(np.float64)).requires_grad_()
    pixels, planes = layer(ours)
    expected_pixels, expected_levels = plain_jpeg(theirs, q, subsampling, rounding)
    torch.testing.assert_close(pixels, expected_pixels, rtol=0, atol=1e-9)
    cotangents = [torch.randn(x.shape, generator=torch.Generator().manual_seed(9)).double() for x in (pixels, *planes)]
    for parts in ((0, 1, 2, 3), (0,), (1,), (2, 3)):
        for loss_of in ((pixels, *planes), (expected_pixels, *expected_levels)):
            torch.autograd.backward(
                [loss_of[part] for part in parts], [cotangents[part] for part in parts], retain_graph=True
            )
        assert ours.grad is not None
        assert theirs.grad is not None
        assert q.grad is not None
        assert layer.log_steps.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(layer.log_steps.grad, q.grad * layer.steps().detach(), rtol=1e-5, atol=1e-5)
        ours.grad = theirs.grad = q.grad = layer.log_steps.grad = None


def test_the_straight_through_gradient_of_a_decoded_coefficient_is_the_closed_form(photo: RGB) -> None:
    """d(q k)/dF = 1 and d(q k)/dq = k - F/q, seen where nothing else is: one grey block, no clamp in reach."""
    block = as_batch(photo)[..., :8, :8].mean(1, keepdim=True).round().clamp(60, 190).expand(1, 3, 8, 8)
    tables = QTables.flat(7)
    layer = JPEGLayer(tables, Codec("4:4:4"))
    pixels, planes = layer(block)
    basis = torch.from_numpy(scipy.fft.dct(np.eye(8), axis=0, norm="ortho")).float()
    wave = torch.outer(basis[2], basis[5])
    (pixels.mean(1)[0] * wave).sum().backward()  # the decoded luma coefficient (2, 5)
    f = dct.coefficients(block, "4:4:4").y[0, 0, 0]
    expected = torch.zeros(8, 8)
    expected[2, 5] = (planes.y[0, 0, 0, 2, 5].detach() - f[2, 5] / 7) * 7
    assert layer.log_steps.grad is not None
    torch.testing.assert_close(layer.log_steps.grad[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rounding", [Soft(0.6), SoftQuantizer(2.0)], ids=repr)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", [(7, 5), (3, 2)], ids=str)
def test_gradcheck_with_a_smooth_surrogate(subsampling: Subsampling, size: tuple[int, int], rounding: Rounding) -> None:
    generator = torch.Generator().manual_seed(3)
    rgb = 60 + 130 * torch.rand(1, 3, *size, generator=generator, dtype=torch.float64)
    steps = 5 + 30 * torch.rand(3, 8, 8, generator=generator, dtype=torch.float64)
    frame = Frame(*size, subsampling)

    def loss(rgb: Tensor, steps: Tensor) -> Tensor:
        pixels, planes = relaxed(rgb, steps, frame, rounding)
        flat = torch.cat([x.flatten() for x in (pixels, *planes)])
        return flat @ torch.randn(len(flat), generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    assert torch.autograd.gradcheck(loss, (rgb.requires_grad_(), steps.requires_grad_()))


def test_second_derivatives_are_refused() -> None:
    layer, rgb = JPEGLayer(QTables.standard(), Codec()), noise(1, 3, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(rgb)[0].square().sum(), rgb, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(gradient.sum())


# ---- the tables as a parameter --------------------------------------------------------------------------------


def test_the_logs_of_the_tables_are_the_one_parameter() -> None:
    layer = JPEGLayer(QTables.standard(50), Codec())
    assert [name for name, _ in layer.named_parameters()] == ["log_steps"]
    assert layer.log_steps.shape == (2, 8, 8)
    copy = JPEGLayer(QTables.flat(3).standard(20), Codec())
    copy.load_state_dict(layer.state_dict())
    assert copy.tables() == layer.tables()


@pytest.mark.parametrize(("start", "toward", "bound"), [(0.2, +1, 1), (900.0, -1, 255)])
def test_an_entry_beyond_its_bound_can_come_back_and_is_not_pushed_further(
    start: float, toward: int, bound: int
) -> None:
    layer = JPEGLayer(QTables.flat(16), Codec())
    with torch.no_grad():
        layer.log_steps[0, 3, 5] = np.log(start)
    assert layer.tables().values[0, 3, 5] == bound
    torch.autograd.backward(-toward * layer.steps()[0, 3, 5])  # descent moves it back
    assert layer.log_steps.grad is not None
    assert layer.log_steps.grad[0, 3, 5] == pytest.approx(-toward * start)
    layer.zero_grad()
    torch.autograd.backward(toward * layer.steps()[0, 3, 5])  # descent would move it further out
    assert torch.count_nonzero(layer.log_steps.grad) == 0


def test_an_entry_at_the_lower_bound_leaves_it_by_descent() -> None:
    layer = JPEGLayer(QTables.flat(1), Codec())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(15):
        optimizer.zero_grad()
        torch.autograd.backward(-layer.steps()[0].sum())
        optimizer.step()
    assert layer.tables().values.min() > 1


def test_training_reaches_the_tables_through_pixels(photo: RGB) -> None:
    """Asked for the photo itself, every step in use shrinks."""
    layer = JPEGLayer(QTables.flat(40), Codec("4:4:4"))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    rgb, losses = as_batch(photo), []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(F.mse_loss(layer(rgb)[0], rgb))
        torch.autograd.backward(losses[-1])
        optimizer.step()
    assert losses[-1] < losses[0] / 3
    assert layer.tables().values.max() < 40


def test_frozen_entries_stay_whatever_the_optimizer_does() -> None:
    frozen = np.zeros((8, 8), bool)
    frozen[0, 0] = frozen[2, 6] = True
    init = random_tables(2)
    layer = JPEGLayer(init, Codec(), frozen=frozen)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.3, weight_decay=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        layer(noise(1, 3, 16, 16))[0].sum().backward()
        assert layer.log_steps.grad is not None
        assert torch.count_nonzero(layer.log_steps.grad[:, frozen]) == 0
        optimizer.step()
    values = layer.tables().values
    np.testing.assert_array_equal(values[:, frozen], init.values[:, frozen])
    assert (values[:, ~frozen] != init.values[:, ~frozen]).mean() > 0.5


def test_tables_refuses_what_training_has_made_nan() -> None:
    layer = JPEGLayer(QTables.standard(), Codec())
    with torch.no_grad():
        layer.log_steps[1, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"entry \[1,2,3\] = nan"):
        layer.tables()


# ---- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surrogate", ["ste", "soft"])
@pytest.mark.parametrize(
    ("rgb", "message"),
    [
        (torch.full((1, 3, 8, 8), float("nan")), "contain NaN"),
        (torch.full((1, 3, 8, 8), float("inf")), "values from inf to inf; allowed: 0..255"),
        (torch.full((1, 3, 8, 8), -0.6), r"values from -0.6 to -0.6; allowed: 0\.\.255"),
        (torch.full((1, 3, 8, 8), 255.7), r"values from 255.7 to 255.7; allowed"),
        (torch.zeros(3, 8, 8), r"shape \[3, 8, 8\]; allowed: \[n, 3, h, w\]"),
        (torch.zeros(1, 8, 8, 3), r"shape \[1, 8, 8, 3\]"),
        (torch.zeros(0, 3, 8, 8), r"shape \[0, 3, 8, 8\]; .*not empty"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float16), "torch.float16; allowed: float32, float64, uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "torch.int64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_batch_of_photos_is_refused(rgb: Tensor, message: str, surrogate: str) -> None:
    with pytest.raises(ValueError, match=message):
        JPEGLayer(QTables.standard(), Codec(), surrogate)(rgb)


def test_masks_and_names_are_checked() -> None:
    with pytest.raises(ValueError, match="float64; it must be bool"):
        JPEGLayer(QTables.standard(), Codec(), frozen=np.ones((8, 8)))
    with pytest.raises(ValueError, match=r"shape \[3, 8, 8\] does not broadcast to the tables' \[2, 8, 8\]"):
        JPEGLayer(QTables.standard(), Codec(), frozen=np.ones((3, 8, 8), bool))
    with pytest.raises(ValueError, match="rounding 'hard' is unknown"):
        JPEGLayer(QTables.standard(), Codec(), "hard")


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    layer = JPEGLayer(QTables.standard(), Codec())
    with torch.no_grad():
        pixels, planes = layer(noise(1, 3, 8, 8).byte())
    assert isinstance(planes, Planes)
    assert pixels.dtype == torch.float32
    assert not pixels.requires_grad
    layer.requires_grad_(False)
    assert not layer(noise(1, 3, 8, 8))[0].requires_grad
