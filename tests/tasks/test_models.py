from __future__ import annotations

import os
import pickle
import resource
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from qtable.tasks import preprocess
from qtable.tasks.base import ModelError
from qtable.tasks.classification import Classifier
from qtable.tasks.models import ModelSpec, load_model
from qtable.tasks.preprocess import Preprocess

GOOD = """
import torch
def net():
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
def raises(): raise OSError("weights are missing")
def leaves(): raise SystemExit
def number(): return 7
def broken_buffer():
    model = torch.nn.BatchNorm2d(3)
    model.running_mean[1] = float("nan")
    return model
def broken():
    model = torch.nn.Linear(2, 2)
    model.weight.data[0, 0] = float("nan")
    return model
value = 3
"""


def test_a_model_loads_from_a_file_and_from_a_package(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    model = load_model(f"{tmp_path / 'mine.py'}:net")
    assert model(torch.ones(2, 3, 4, 4)).shape == (2, 3)
    assert not model.training
    assert isinstance(load_model("torch.nn:Identity"), nn.Identity)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine.py", "FILE.py:NAME"),
        ("mine:py:", "FILE.py:NAME"),
        ("weights.pth", "weights alone are no model; name what they belong to: FILE.py:NAME@weights.pth"),
        ("{}/mine.py:nothing", "no callable 'nothing'"),
        ("{}/mine.py:value", "no callable 'value'"),
        ("{}/mine.py:raises", "weights are missing"),
        ("{}/mine.py:leaves", "SystemExit"),
        ("{}/mine.py:number", "not a torch.nn.Module"),
        ("{}/mine.py:broken", "weight holds NaN"),
        ("{}/mine.py:broken_buffer", "running_mean holds NaN"),
        ("{}/absent.py:net", "no such file"),
        ("{}/syntax.py:net", "SyntaxError"),
        ("{}/imports.py:net", "no_such_package"),
        ("{}/exits.py:net", "SystemExit"),
        ("no_such_package.models:net", "no_such_package"),
    ],
)
def test_models_that_do_not_load_are_one_clear_error(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "syntax.py").write_text("def net(:\n")
    (tmp_path / "imports.py").write_text("import no_such_package\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(ModelError, match=message):
        load_model(spec.format(tmp_path))


def test_preprocess_follows_the_usual_pipeline() -> None:
    from skimage import data

    photo = data.coffee()[:300, :451]
    ours = Preprocess(size=64, resize=80)(torch.from_numpy(photo).permute(2, 0, 1)[None].float())
    resized = Image.fromarray(photo).resize((120, 80), Image.Resampling.BILINEAR).crop((28, 8, 92, 72))
    theirs = (np.asarray(resized) / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert ours.shape == (1, 3, 64, 64)
    gap = ours[0].permute(1, 2, 0).numpy() - theirs
    assert np.abs(gap).max() < 0.03  # Pillow rounds to 8 bits after each of its two passes: up to 1 / 255 / 0.224
    assert abs(gap.mean()) < 1e-3


@pytest.mark.parametrize(
    ("height", "width", "size", "resize"),
    [(3, 200, 16, 20), (200, 3, 16, 20), (30, 997, 15, 17), (33, 1001, 8, 11), (7, 121, 7, 7), (1, 300, 20, 21)],
)
def test_strips_are_cropped_first_to_the_same_values_and_gradients(
    height: int, width: int, size: int, resize: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = 255 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    found = []
    for strip in (0, 1 << 40):  # always, never
        monkeypatch.setattr(preprocess, "_STRIP", strip)
        photo = rgb.clone().requires_grad_(True)
        answer = Preprocess(size, resize)(photo)
        (answer * weights).sum().backward()
        found.append((answer.detach(), photo.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_strip_takes_little_memory() -> None:
    strip = torch.arange(12000.0).remainder(256).expand(1, 3, 1, 12000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for photo in (strip, strip.mT):
        assert Preprocess(224, 256)(photo).shape == (1, 3, 224, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes; 9 GB all in all


def test_preprocess_passes_gradients_to_the_pixels() -> None:
    rgb = torch.full((1, 3, 40, 50), 100.0, requires_grad=True)
    Preprocess(size=16, resize=20)(rgb).sum().backward()
    assert rgb.grad is not None
    assert rgb.grad.abs().sum() > 0


def test_preprocess_refuses_crops_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="larger than resize"):
        Preprocess(size=300, resize=256)
    with pytest.raises(ValueError, match="smaller than the 64 x 64 crop"):
        Preprocess(size=64, resize=None)(torch.zeros(1, 3, 50, 80))


def test_what_lies_beside_a_models_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_the_model.py").write_text("classes = 4")
    (tmp_path / "user.py").write_text(
        "import torch, beside_the_model\ndef net(): return torch.nn.Linear(2, beside_the_model.classes)"
    )
    assert load_model(f"{tmp_path / 'user.py'}:net")(torch.ones(1, 2)).shape == (1, 4)


def test_preprocess_shows_its_settings() -> None:
    assert repr(Preprocess(64, 80)) != repr(Preprocess(64, 96))


# ---- files that are a model by themselves, and weights --------------------------------------------------------

NETWORK = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 5)
    def forward(self, rgb):
        return self.head(self.body(rgb / 64 - 2).mean((2, 3)))

def net(): return Network()
"""
names: dict[str, Callable[[], nn.Module]] = {}
exec(NETWORK, names)
net = names["net"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net` with any sides (any.pt2), for one photo (one.pt2), for four (four.pt2), in training mode, and scripted."""
    folder = tmp_path_factory.mktemp("programs")
    rgb, model = torch.rand(4, 3, 24, 32), net().eval()
    free = {0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    torch.export.save(torch.export.export(model, (rgb,), dynamic_shapes=(free,)), folder / "any.pt2")
    torch.export.save(torch.export.export(model, (rgb[:1],)), folder / "one.pt2")
    torch.export.save(torch.export.export(model, (rgb,)), folder / "four.pt2")
    torch.export.save(torch.export.export(net().train(), (rgb,)), folder / "training.pt2")
    torch.export.save(torch.export.export(nn.Bilinear(2, 2, 2), (rgb[:, 0, 0, :2],) * 2), folder / "two.pt2")
    torch.export.save(torch.export.export(nn.Linear(32, 2), (rgb[0, 0],)), folder / "rows.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(model, rgb)  # type: ignore[no-untyped-call]
        for name in ("traced.ts", "traced.pt", "traced.torchscript"):
            traced.save(folder / name)
        nn.init.constant_(model.head.bias, float("nan"))  # type: ignore[union-attr, arg-type]
        torch.jit.trace(model, rgb, check_trace=False).save(folder / "broken.ts")  # type: ignore[no-untyped-call]
    return folder


@pytest.mark.parametrize(
    ("file", "photos", "height", "width"),
    [
        ("any.pt2", 6, 40, 31),
        ("any.pt2", 1, 24, 32),
        ("one.pt2", 3, 24, 32),
        ("four.pt2", 4, 24, 32),
        ("four.pt2", 6, 24, 32),
        ("traced.ts", 6, 40, 31),
        ("traced.pt", 2, 9, 9),
        ("traced.torchscript", 2, 9, 9),
    ],
)
def test_a_program_answers_and_differentiates_as_the_network_does(
    programs: Path, file: str, photos: int, height: int, width: int
) -> None:
    rgb = (torch.rand(photos, 3, height, width, generator=torch.Generator().manual_seed(1)) * 255).requires_grad_(True)
    ours, theirs = Classifier(load_model(str(programs / file))), Classifier(net())
    for _ in range(3):  # TorchScript compiles anew after its first runs
        assert torch.allclose(ours.answers(rgb), theirs.answers(rgb), atol=1e-5)
        gradients = [torch.autograd.grad(task.answers(rgb).square().sum(), rgb)[0] for task in (ours, theirs)]
        assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
        assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("training.pt2", "exported in training mode; call eval"),
        ("two.pt2", "takes 2 inputs"),
        ("rows.pt2", r"its input is \[24, 32\]"),
        ("text.pt2", "not a torch.export program"),
        ("text.ts", "not a TorchScript program"),
        ("empty.pt2", "not a torch.export program"),
        ("empty.ts", "not a TorchScript program"),
        ("absent.ts", "no such file"),
        ("broken.ts", "parameter run.head.bias holds NaN"),
    ],
)
def test_programs_that_do_not_load_are_one_clear_error(
    programs: Path, caplog: pytest.LogCaptureFixture, file: str, message: str
) -> None:
    (programs / "text.pt2").write_text("no program")
    (programs / "text.ts").write_text("no program")
    (programs / "empty.pt2").write_bytes(b"")
    (programs / "empty.ts").write_bytes(b"")
    with pytest.raises(ModelError, match=message) as error:
        load_model(str(programs / file))
    assert "\n" not in str(error.value)
    assert not caplog.records


def test_photos_of_another_size_than_a_program_takes_are_one_clear_error(programs: Path) -> None:
    with pytest.raises(ModelError, match=r"RGB \[2, 3, 24, 30\]: it takes photos of 32 x 24 pixels"):
        Classifier(load_model(str(programs / "one.pt2"))).answers(torch.zeros(2, 3, 24, 30))


@pytest.mark.parametrize("answer", [{"logits": 1}, (torch.zeros(2, 3),), torch.zeros(2), torch.zeros(3, 2)])
def test_wrong_answers_are_one_clear_error(answer: object) -> None:
    class Wrong(nn.Module):
        def forward(self, rgb: Tensor) -> object:
            return answer

    with pytest.raises(ModelError, match="a classifier gives"):
        Classifier(Wrong()).answers(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("error", [AssertionError("no"), KeyError("key"), MemoryError(), OSError("disk\nfull")])
def test_whatever_a_model_raises_is_one_clear_error(error: Exception) -> None:
    class Raising(nn.Module):
        def forward(self, rgb: Tensor) -> Tensor:
            raise error

    with pytest.raises(ModelError, match=r"the model fails on RGB \[2, 3, 8, 8\]: ") as told:
        Classifier(Raising()).answers(torch.zeros(2, 3, 8, 8))
    assert "\n" not in str(told.value)


def write_onnx(
    file: Path, weights: npt.NDArray[np.float32], sides: tuple[int | str, ...], dtype: str = "FLOAT", **external: str
) -> None:
    """Mean colour [n, 3] times `weights` [classes, 3]; external: where the weights are, outside the file."""
    helper = pytest.importorskip("onnx.helper", reason="needs onnx to write a model")
    from onnx import TensorProto, numpy_helper

    held = numpy_helper.from_array(weights, "weights")
    if external:
        held.ClearField("raw_data")
        held.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            entry = held.external_data.add()
            entry.key, entry.value = key, value
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["rgb"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("GlobalAveragePool", ["float"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["colour"]),
            helper.make_node("Gemm", ["colour", "weights"], ["logits"], transB=1),
        ],
        "mean colour",
        [helper.make_tensor_value_info("rgb", getattr(TensorProto, dtype), sides)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [sides[0], len(weights)])],
        [held],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    file.write_bytes(model.SerializeToString())


WEIGHTS = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("sides", [("n", 3, "h", "w"), (1, 3, 9, 8), (4, 3, "h", "w")])
def test_an_onnx_model_answers_as_its_graph_says(tmp_path: Path, sides: tuple[int | str, ...]) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra qtable[onnx]")
    write_onnx(tmp_path / "mean.onnx", WEIGHTS, sides)
    rgb = torch.rand(6, 3, 9, 8) * 255
    channels_last = rgb.contiguous(memory_format=torch.channels_last)
    task = Classifier(load_model(str(tmp_path / "mean.onnx")))
    for photos in (rgb, channels_last, channels_last.requires_grad_(True)):
        expected = photos.detach().mean((2, 3)).numpy() @ WEIGHTS.T
        assert np.allclose(task.answers(photos).numpy(), expected, rtol=1e-4)


def test_onnx_models_that_cannot_be_used_are_one_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra qtable[onnx]")
    write_onnx(tmp_path / "bytes.onnx", WEIGHTS, ("n", 3, "h", "w"), "UINT8")
    write_onnx(tmp_path / "grey.onnx", WEIGHTS[:, :1], ("n", 1, "h", "w"))
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    for name, place in (("up", "../secret"), ("root", str(tmp_path / "secret"))):
        write_onnx(tmp_path / "model" / f"{name}.onnx", WEIGHTS, ("n", 3, "h", "w"), location=place)
    (tmp_path / "text.onnx").write_text("no model")
    for name, message in (
        ("bytes", "rgb: tensor.uint8.*allowed: one tensor.float. in"),
        ("grey", r"its input is \[\?, 1, \?, \?\]"),
        ("model/up", "escapes model directory"),
        ("model/root", "Absolute path not allowed"),
        ("text", "not an ONNX model"),
    ):
        with pytest.raises(ModelError, match=message) as error:
            load_model(str(tmp_path / f"{name}.onnx"))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "pt"])
def test_weights_fill_a_network_or_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "code.py").write_text(NETWORK)
    spec = f"{tmp_path / 'code.py'}:net@{tmp_path / f'w@1.{kind}'}"
    own = net().state_dict()

    def save(weights: dict[str, Tensor]) -> None:
        file = tmp_path / f"w@1.{kind}"
        save_file(weights, file) if kind == "safetensors" else torch.save(weights, file)

    save({name: value + 1 for name, value in own.items()})
    loaded = load_model(spec).state_dict()
    assert all(torch.equal(loaded[name], value + 1) for name, value in own.items())
    for weights, message in (
        ({name: own[name] for name in own if name != "head.bias"}, r"head\.bias is missing$"),
        ({}, r"body\.0\.weight is missing \(and 8 more\)"),
        (own | {"extra": torch.ones(1)}, r"extra is not the model's$"),
        (own | {"head.bias": torch.ones(7)}, r"head\.bias is \[7\], the model's \[5\]$"),
        (own | {"head.bias": torch.full((5,), float("nan"))}, r"parameter head\.bias holds NaN"),
    ):
        save(weights)
        with pytest.raises(ModelError, match=message) as error:
            load_model(spec)
        assert "\n" not in str(error.value)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("content", ["hostile", "hostile plain pickle", "whole network", "checkpoint", "list", "text"])
def test_a_pickle_that_is_no_plain_state_dict_is_refused_and_not_run(
    tmp_path: Path, programs: Path, content: str
) -> None:
    (tmp_path / "code.py").write_text(NETWORK)
    made, file = tmp_path / "code ran", tmp_path / "w.pth"
    if content == "hostile plain pickle":
        file.write_bytes(pickle.dumps({"head.bias": Hostile(made)}))
    elif content == "text":
        file.write_text("no weights")
    else:
        held = {"hostile": {"head.bias": Hostile(made)}, "whole network": nn.Linear(2, 2), "list": [torch.ones(2)]}
        torch.save(held.get(content, {"epoch": 3, "state_dict": net().state_dict()}), file)
    (tmp_path / "w.pt").write_bytes(file.read_bytes())
    code = f"{tmp_path / 'code.py'}:net"
    for spec, message in (
        (f"{code}@{file}", "not a plain state dict of tensors"),
        (f"{code}@{programs / 'traced.pt'}", "not a plain state dict of tensors"),
        (str(file), "weights alone are no model"),
        (str(tmp_path / "w.pt"), "not a TorchScript program.*FILE.py:NAME@"),
    ):
        with pytest.raises(ModelError, match=message) as error:
            load_model(spec)
        assert "\n" not in str(error.value)
    assert not made.exists()
    torch.load(file, weights_only=False) if content == "hostile" else None
    assert made.exists() == (content == "hostile")  # the pickle does what it is feared for


def test_weights_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(NETWORK)
    (tmp_path / "w.npz").write_bytes(b"")
    with pytest.raises(ModelError, match=r"of an unknown kind; allowed: \.safetensors, \.pth, \.pt"):
        load_model(f"{tmp_path / 'code.py'}:net@{tmp_path / 'w.npz'}")


def test_what_people_type_is_taken_apart_and_says_whether_code_runs() -> None:
    here = Path.cwd()
    for text, absolute, files, runs in (
        ("m.py:net", f"{here}/m.py:net", ["m.py"], True),
        ("a@b/c:d.py:net@w:1@2.pth", f"{here}/a@b/c:d.py:net@{here}/w:1@2.pth", ["a@b/c:d.py", "w:1@2.pth"], True),
        ("p.q:net", "p.q:net", [], True),
        ("p.q:net@w.safetensors", f"p.q:net@{here}/w.safetensors", ["w.safetensors"], True),
        ("x/m.PT2", f"{here}/x/m.PT2", ["x/m.PT2"], True),
        ("m.ts", f"{here}/m.ts", ["m.ts"], True),
        ("m.onnx", f"{here}/m.onnx", ["m.onnx"], False),
    ):
        spec = ModelSpec.parse(text)
        assert str(spec) == text
        assert str(spec.absolute()) == absolute
        assert [str(file) for file in spec.files] == files
        assert spec.runs_code == runs
