"""A user's model from Python code, an exported program or an ONNX file, and `Preprocess` to build one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qtable.task import ModelError

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class Preprocess(nn.Module):
    """Decoded RGB (float [n, 3, h, w], 0..255, any size) -> what a network was trained on; differentiable.

    Scales the shorter side to `resize` (bilinear with antialiasing; None: leaves it), cuts the central
    `size` x `size` (None: keeps all), divides by 255, subtracts `mean` and divides by `std` (per channel, in 0..1).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int | None = 224,
        resize: int | None = 256,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if size is not None and resize is not None and size > resize:
            raise ValueError(f"size {size} is larger than resize {resize}: the crop would leave the photo")
        self.size, self.resize = size, resize
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def extra_repr(self) -> str:
        return f"size={self.size}, resize={self.resize}"

    def forward(self, rgb: Tensor) -> Tensor:
        """float [n, 3, `size`, `size`], normalized. ValueError for photos smaller than the crop."""
        h, w = rgb.shape[-2:]
        if self.resize is not None and min(h, w) != self.resize:
            h, w = (round(side * self.resize / min(h, w)) for side in (h, w))
            rgb = F.interpolate(rgb, (h, w), mode="bilinear", antialias=True, align_corners=False)
        if self.size is not None:
            if min(h, w) < self.size:
                raise ValueError(f"a photo of {w} x {h} is smaller than the {self.size} x {self.size} crop; set resize")
            top, left = (h - self.size) // 2, (w - self.size) // 2
            rgb = rgb[..., top : top + self.size, left : left + self.size]
        return (rgb / 255.0 - self.mean) / self.std


@dataclass(frozen=True)
class ModelSpec:
    """What a user types for a model, taken apart.

    place: a file, or the name of a Python module. name: what to call in Python code; "" for files that are a model by
    themselves. weights: a file with the weights of what `name` makes; "" for none.
    """

    place: str
    name: str = ""
    weights: str = ""

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """ModelError for anything but `FILE.py:NAME[@WEIGHTS]`, `package.module:NAME[@WEIGHTS]` and `FILE`."""
        called = re.fullmatch(r"(.+?):([^\W\d]\w*)(?:@(.+))?", text, re.DOTALL)
        if called:
            return cls(called[1], called[2], called[3] or "")
        if _suffix(text) in READERS:
            return cls(text)
        if _suffix(text) in WEIGHTS:
            raise ModelError(
                f"model {text!r}: weights alone are no model; name what they belong to: FILE.py:NAME@{text}"
            )
        raise ModelError(
            f"model {text!r} is not FILE.py:NAME or package.module:NAME (each may end in @WEIGHTS), nor a file"
            f" {', '.join(READERS)}"
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the model is read from."""
        code = Path(self.place) if not self.name or self.place.endswith(".py") else None
        weights = Path(self.weights) if self.weights else None
        return tuple(file for file in (code, weights) if file is not None)

    @property
    def runs_code(self) -> bool:
        """Whether `place` can do what a program of its author can do: see docs/reliability.md."""
        return bool(self.name) or _suffix(self.place) != ".onnx"

    def absolute(self) -> ModelSpec:
        """The same with absolute paths."""
        place = str(Path(self.place).absolute()) if not self.name or self.place.endswith(".py") else self.place
        return replace(self, place=place, weights=self.weights and str(Path(self.weights).absolute()))

    def __str__(self) -> str:
        return self.place + (self.name and f":{self.name}") + (self.weights and f"@{self.weights}")


def load_model(spec: str | None) -> nn.Module:
    """The model that a user names; None: the embedded task's network.

    spec: `FILE.py:NAME` or `package.module:NAME`, where NAME is a callable without arguments that gives an `nn.Module`;
    `@WEIGHTS` behind it (.safetensors, or a .pth or .pt file of a state dict) fills that module. Or a file: a
    `torch.export` program (.pt2), TorchScript (.ts, .torchscript, .pt), or ONNX (.onnx; gives no gradients).
    All but ONNX runs the code that it names. ModelError, in one line, if it cannot be read, called or used.
    """
    if spec is None:
        from qtable import embedded

        return embedded.network()
    where = ModelSpec.parse(spec)
    for file in where.files:
        if not file.is_file():
            raise ModelError(f"model {spec!r}: {file}: no such file")
    try:
        model = _called(where) if where.name else READERS[_suffix(where.place)](Path(where.place))
        if where.weights:
            _fill(model, Path(where.weights))
    except ModelError as error:
        raise ModelError(f"model {spec!r}: {error}") from error
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelError(f"model {spec!r}: its parameter {name} holds NaN or infinity")
    for name, buffer in model.named_buffers():
        if torch.isnan(buffer).any():
            raise ModelError(f"model {spec!r}: its buffer {name} holds NaN")
    return model.eval()


def _suffix(place: str) -> str:
    return Path(place).suffix.lower()


def _short(error: BaseException) -> str:
    """The kind and first line of an error; torch and onnxruntime write pages."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


# ---- Python code ----------------------------------------------------------------------------------------------


def _called(where: ModelSpec) -> nn.Module:
    try:
        module = _import(where.place)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's file may raise anything while it is imported, SystemExit included
        raise ModelError(f"importing {where.place} fails with {type(error).__name__}: {error}") from error
    factory = getattr(module, where.name, None)
    if not callable(factory):
        raise ModelError(f"{where.place} has no callable {where.name!r}")
    try:
        model = factory()
    except (Exception, SystemExit) as error:
        raise ModelError(f"{where.name}() fails with {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{where.name}() gives {type(model).__name__}, not a torch.nn.Module")
    return model


def _import(place: str) -> object:
    path = Path(place)
    folder = str(path.resolve().parent if place.endswith(".py") else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(
            0, folder
        )  # so that what lies beside the user's file can be imported, as Python does for scripts
    if not place.endswith(".py"):
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(f"_qtable_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{place}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _fill(model: nn.Module, file: Path) -> None:
    """Load the weights in `file`, which must be those of `model`, all of them and no others."""
    if _suffix(file.name) not in WEIGHTS:
        raise ModelError(f"weights {file}: of an unknown kind; allowed: {', '.join(WEIGHTS)}")
    weights, own = WEIGHTS[_suffix(file.name)](file), model.state_dict()
    faults = [f"{name} is missing" for name in own if name not in weights]
    faults += [f"{name} is not the model's" for name in weights if name not in own]
    faults += [
        f"{name} is {list(value.shape)}, the model's {list(own[name].shape)}"
        for name, value in weights.items()
        if name in own and isinstance(own[name], Tensor) and value.shape != own[name].shape
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ModelError(f"weights {file} do not fit: {faults[0]}{more}")
    try:
        model.load_state_dict(weights)
    except Exception as error:
        raise ModelError(f"weights {file} do not fit: {' '.join(str(error).split())}") from error


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(file)
    except Exception as error:
        raise ModelError(f"weights {file}: not a safetensors file ({_short(error)})") from error
    return weights


def _state_dict(file: Path) -> dict[str, Tensor]:
    """A state dict from what `torch.save` wrote; a pickle of anything else is not opened, since it could run code."""
    try:
        with _quiet(), file.open("rb") as opened:
            weights = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"weights {file}: not a plain state dict of tensors, and other pickles can run code: refused;"
            " save model.state_dict()"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        held = f"a dict of {', '.join(map(str, weights))}" if isinstance(weights, dict) else type(weights).__name__
        raise ModelError(f"weights {file}: not a plain state dict of tensors but {held:.200}; save model.state_dict()")
    return weights


WEIGHTS: Final[Mapping[str, Callable[[Path], dict[str, Tensor]]]] = {
    ".safetensors": _safetensors,
    ".pth": _state_dict,
    ".pt": _state_dict,
}
"""How files of weights are read, by suffix."""


# ---- files that are a model by themselves ---------------------------------------------------------------------

Sides = tuple[int | None, int | None, int | None, int | None]
"""Photos, channels, height, width that a program takes; None for what may vary."""


class Program(nn.Module):
    """A model that came as one file: `run` maps RGB (float [n, 3, h, w], 0..255) to logits.

    sides: a fixed number of photos is reached by cutting batches and repeating the last photo; photos of other than a
    fixed height and width are refused (ValueError). digest: of the file, so that `repr` tells programs apart.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], sides: Sides, digest: str) -> None:
        super().__init__()
        self.run = run
        self.sides, self.digest = sides, digest

    def extra_repr(self) -> str:
        return f"sides={list(self.sides)}, digest={self.digest}"

    def train(self, mode: bool = True) -> Self:
        """Nothing: programs are in evaluation mode, and exported ones refuse to be asked."""
        return self

    def forward(self, rgb: Tensor) -> Any:
        """What `run` answers, [n, classes]; ValueError for photos of another height or width than it takes."""
        count, _, height, width = self.sides
        if height not in (None, rgb.shape[2]) or width not in (None, rgb.shape[3]):
            raise ValueError(
                f"it takes photos of {width or 'any'} x {height or 'any'} pixels; bring them to that size, or export it"
                " with variable height and width"
            )
        if count is None:
            return self.run(rgb)
        parts = []
        for part in torch.split(rgb, count):
            full = torch.cat([part, part[-1:].expand(count - len(part), -1, -1, -1)])
            answer = self.run(full)
            if not isinstance(answer, Tensor):
                return answer
            parts.append(answer[: len(part)])
        return torch.cat(parts)


def _sides(shape: Sequence[object]) -> Sides:
    """Which sides are fixed. ModelError for an input that is no batch of RGB photos."""
    fixed = [side if isinstance(side, int) else None for side in shape]
    if len(fixed) != 4 or fixed[1] not in (None, 3):
        found = ", ".join("?" if side is None else str(side) for side in fixed)
        raise ModelError(f"its input is [{found}]; a model takes RGB photos [n, 3, h, w]")
    return fixed[0], fixed[1], fixed[2], fixed[3]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings and log lines while it loads: it deprecates formats, and logs what it then raises."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


def _exported(file: Path) -> nn.Module:
    """A program of `torch.export.save`. Loading it unpickles and can run code, whatever torch's version: see docs."""
    try:
        with _quiet(), file.open("rb") as opened:
            program = torch.export.load(opened)
    except Exception as error:
        raise ModelError(f"not a torch.export program ({_short(error)})") from error
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].dtype != torch.float32:
        raise ModelError(f"it takes {len(names)} inputs ({', '.join(map(str, names))}); allowed: one, of float32")
    if any(_in_training(node) for node in program.graph.nodes):
        raise ModelError("it was exported in training mode; call eval() on the network before torch.export.export")
    return Program(program.module(), _sides(inputs[0].shape), _digest(file))


def _in_training(node: torch.fx.Node) -> bool:
    """Whether this is dropout, batch norm or the like with its training switch on."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return False
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    return given.get("train") is True or given.get("training") is True


def _scripted(file: Path) -> nn.Module:
    """A TorchScript program. What it runs is no Python, but it can read and write files."""
    try:
        with _quiet(), file.open("rb") as opened:
            script = torch.jit.load(opened, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ModelError(
            f"not a TorchScript program ({_short(error)}); weights go behind the code that they belong to:"
            f" FILE.py:NAME@{file}"
        ) from error
    return Program(script.eval(), (None, 3, None, None), _digest(file))


def _onnx(file: Path) -> nn.Module:
    """An ONNX model, run by onnxruntime on the processor, one thread per batch; its answers have no gradients."""
    try:
        import onnxruntime
    except ImportError:
        raise ModelError("ONNX models need onnxruntime: pip install 'qtable[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised, too
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"not an ONNX model that onnxruntime can run ({_short(error)})") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [value.type for value in inputs] != ["tensor(float)"] or len(outputs) != 1:
        found = [f"{value.name}: {value.type}" for value in (*inputs, *outputs)]
        raise ModelError(f"its inputs and outputs are {', '.join(found)}; allowed: one tensor(float) in, one out")
    name = inputs[0].name

    def run(rgb: Tensor) -> Tensor:
        (answer,) = session.run(None, {name: rgb.detach().cpu().contiguous().numpy()})
        return torch.from_numpy(answer).to(rgb.device)

    return Program(run, _sides(inputs[0].shape), _digest(file))


READERS: Final[Mapping[str, Callable[[Path], nn.Module]]] = {
    ".pt2": _exported,
    ".ts": _scripted,
    ".torchscript": _scripted,
    ".pt": _scripted,
    ".onnx": _onnx,
}
"""How files that are a model by themselves are read, by suffix."""
