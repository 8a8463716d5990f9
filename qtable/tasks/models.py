"""A user's model from Python code, an exported program or an ONNX file, and `Preprocess` to build one."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from qtable.tasks.base import ModelError
from qtable.tasks.programs import READERS, _quiet, _short


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

    def check_files(self) -> None:
        """ModelError, naming it, if a file is not there."""
        for file in self.files:
            if not file.is_file():
                raise ModelError(f"model {str(self)!r}: {file}: no such file")

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
        from qtable.tasks import embedded

        return embedded.network()
    where = ModelSpec.parse(spec)
    where.check_files()
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
