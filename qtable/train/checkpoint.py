"""How a training is kept and found again: one safetensors file, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from qtable.files import write_atomically
from qtable.jpeg.calibration import Calibrated
from qtable.jpeg.codec import Codec
from qtable.measure.changes import changes
from qtable.train.joint import WITHOUT_UNIT, Joint, proxy_of
from qtable.train.recipe import Recipe, TrainingError
from qtable.train.validation import Validation


class State(Protocol):
    """What a checkpoint keeps of a training."""

    recipe: Recipe
    codec: Codec
    out: Path
    joint: Joint
    average: AveragedModel
    best_state: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    identity: Mapping[str, Any]
    step: int
    bad: int
    history: list[Validation]


def path_of(out: Path) -> Path:
    """Where the checkpoint of a training in the folder `out` is."""
    return out / "checkpoint.safetensors"


def save(run: State) -> None:
    """Write all of it; OSError if it cannot be written."""
    tensors = {
        **_prefixed("joint.", run.joint.state_dict()),
        **_prefixed("average.", run.average.state_dict()),
        **_prefixed("best.", run.best_state),
    }
    for i, state in run.optimizer.state_dict()["state"].items():
        tensors |= _prefixed(f"optimizer.{i}.", state)
    facts = {
        "identity": run.identity,
        "step": run.step,
        "bad": run.bad,
        "rate": [run.joint.rate.offset, run.joint.rate.slope],
        "history": [asdict(v) for v in run.history],
    }
    data = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {"qtable": json.dumps(facts)},
    )
    write_atomically(path_of(run.out), data)


def load(run: State) -> None:
    """Put a training back to where its checkpoint was. TrainingError if it is another training's, or damaged."""
    path = path_of(run.out)
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["qtable"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check_identity(run, facts["identity"])
        run.joint.load_state_dict(_without("joint.", tensors))
        run.average.load_state_dict(_without("average.", tensors))
        run.best_state = _without("best.", tensors)
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _without("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = tensor
        run.optimizer.load_state_dict({"state": states, "param_groups": run.optimizer.state_dict()["param_groups"]})
        run.step, run.bad = int(facts["step"]), int(facts["bad"])
        run.history = [Validation(**v) for v in facts["history"]]
        offset, slope = facts["rate"]
        run.joint.rate = Calibrated(proxy_of(run.recipe, run.codec), offset, slope, run.recipe.rate in WITHOUT_UNIT)
    except TrainingError:
        raise
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(f"{path}: not a checkpoint of this training ({first}); choose another --out") from None


def _check_identity(run: State, before: Mapping[str, Any]) -> None:
    differences = changes({"identity": before}, {"identity": run.identity})
    if differences:
        raise TrainingError(f"{run.out} holds another training: {'; '.join(differences)}; choose another --out")


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _without(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
