"""Models that come as one file: torch.export, TorchScript and ONNX."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from qtable.tasks.base import ModelError


def _short(error: BaseException) -> str:
    """The kind and first line of an error; torch and onnxruntime write pages."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


Sides = tuple[int | None, int | None, int | None, int | None]
"""Photos, channels, height, width that a program takes; None for what may vary."""


class Program(nn.Module):
    """A model that came as one file: `run` maps RGB (float [n, 3, h, w], 0..255) to answers.

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
