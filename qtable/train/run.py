"""Tables and network trained together: straight through exact JPEG, with a rate in calibrated bytes.

One run trains one network and one set of tables for each of its operating points. Every batch is divided among the
points, each point's photos go through JPEG with its tables, and the network sees all of them: a family of tables for
one network (as in rate-conditioned codecs: Choi et al., ICCV 2019; SlimCAE, CVPR 2021). A family of one is the plain
alternative, a run per operating point. The loss is

    mean over points of (task loss in nats + multiplier * bits per pixel).

Forward, the integer tables and libjpeg-turbo's arithmetic are in use from the first step on (`JPEGLayer`), so there is
no gap between training and files. In the last part of a run the tables stay, and the network settles on them.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from qtable.jpeg.calibration import Calibrated
from qtable.jpeg.codec import Codec
from qtable.jpeg.tables import QTables
from qtable.photos.sets import Annotations, ImageSet
from qtable.progress import Watch
from qtable.tasks.base import DifferentiableTask
from qtable.train import checkpoint
from qtable.train.draws import Crops, Draw, Draws, crop_side, together
from qtable.train.joint import Joint, calibrate
from qtable.train.processes import by_first, rank, world
from qtable.train.recipe import Recipe, TrainingError
from qtable.train.validation import Trained, Validation, validate, validation_of

CALIBRATION_PHOTOS: Final = 32
MOST_BAD_STEPS: Final = 20
"""After so many steps in a row without a finite gradient a run is given up."""


def train(
    task: DifferentiableTask,
    starts: Sequence[QTables],
    multipliers: Sequence[float],
    images: ImageSet,
    codec: Codec,
    recipe: Recipe,
    out: Path,
    identity: Mapping[str, Any],
    watch: Watch = lambda *_: None,
) -> Trained:
    """Train on `fit`, validate on `search`, keep a checkpoint in `out`; the same call continues from it.

    task: its network is not changed, a copy is trained. starts, multipliers: one for each operating point. Where
    `torch.distributed` is initialized, each process takes its share of each batch.

    A run that is killed and continued ends as an undisturbed one, to the last bit where torch's sums are the same from
    run to run: with one thread (OMP_NUM_THREADS=1).

    Ctrl-C ends it with what was validated best by then. TrainingError if the run in `out` is another one, if a share
    of a batch has fewer photos than there are points, or if training diverges.
    """
    if not starts or len(starts) != len(multipliers):
        raise TrainingError(f"{len(starts)} starting tables and {len(multipliers)} multipliers; one of each per point")
    if not all(math.isfinite(m) and m >= 0 for m in multipliers):
        raise TrainingError(f"multipliers {list(multipliers)}; allowed: finite and not negative")
    if recipe.batch // world() < len(starts):
        raise TrainingError(f"batch {recipe.batch} for {len(starts)} operating points in {world()} processes")
    run = _Run(task, starts, multipliers, images, codec, recipe, out, identity)
    interrupted = False
    try:
        run.go(watch)
    except KeyboardInterrupt:
        interrupted = True
        if not run.history:
            raise
    best, tables = run.best()
    return Trained(best, tables, run.history, interrupted)


class _Run:
    """The state of one training, and how it is kept and found again."""

    def __init__(
        self,
        task: DifferentiableTask,
        starts: Sequence[QTables],
        multipliers: Sequence[float],
        images: ImageSet,
        codec: Codec,
        recipe: Recipe,
        out: Path,
        identity: Mapping[str, Any],
    ) -> None:
        self.task, self.recipe, self.codec, self.out = task, recipe, codec, out
        self.device = task.device
        self.multipliers = torch.tensor(multipliers, dtype=torch.float32, device=self.device)
        self.fit, self.search = images.fit, images.search
        self.side = crop_side(self.fit, recipe)
        few = np.linspace(0, len(self.fit) - 1, min(len(self.fit), CALIBRATION_PHOTOS)).astype(int)
        self.crops = Crops(self.fit, self.side, task)
        self.few = [self.crops[Draw(int(i), 0.5, 0.5, False)][0].permute(1, 2, 0).numpy() for i in few]
        self.joint = Joint(task, starts, codec, recipe).to(self.device)
        convert_conv2d_weight_memory_format(self.joint.network, torch.channels_last)  # faster on a CPU
        decay = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.joint, multi_avg_fn=decay, use_buffers=True)
        self.average.update_parameters(self.joint)
        tables = [layer.log_steps for layer in self.joint.each_layer()]
        self.groups = [tables, list(self.joint.network.parameters())]
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "weight_decay": decay} for group, decay in zip(self.groups, (0.0, 1e-4), strict=True)],
            lr=recipe.network_rate,
        )
        self.step, self.bad = 0, 0
        self.history: list[Validation] = []
        self.best_state: dict[str, Tensor] = {}
        self.sums = torch.zeros(1 + len(starts))
        self.identity = json.loads(json.dumps({"recipe": asdict(recipe), "multipliers": list(multipliers), **identity}))
        out.mkdir(parents=True, exist_ok=True)
        if checkpoint.path_of(out).exists():
            checkpoint.load(self)
        else:
            self.joint.rate = calibrate(self.joint, self.few, recipe)

    # -- the loop

    def go(self, watch: Watch) -> None:
        recipe = self.recipe
        if not self.history:
            self._validate()
        draws = Draws(len(self.fit), recipe, self.step, rank(), world(), len(self.multipliers))
        batches = DataLoader(self.crops, batch_sampler=draws, collate_fn=together)
        model: nn.Module = self.joint if world() == 1 else DistributedDataParallel(self.joint)
        self.joint.train()
        if self._is_over():
            return
        for rgb, known in batches:
            if self.step == recipe.tables_learn_for and recipe.learn == "both":
                tables = self._averaged().tables()
                self.joint.settle(tables)
                self._averaged().settle(tables)
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(recipe.seed * 1_000_003 + self.step)  # dropout and noisy roundings follow the step
                self._descend(model, rgb.to(self.device), known)
            self.step += 1
            if self.step % recipe.every == 0 or self.step == recipe.steps:
                self._validate()
                if self._is_over():
                    watch("training", recipe.steps, recipe.steps, self._note())
                    return
            watch("training", self.step, recipe.steps, self._note())

    def _descend(self, model: nn.Module, rgb: Tensor, known: Annotations) -> None:
        target: Any = known
        if self.recipe.loss == "distillation":
            with torch.no_grad():
                target = self.task.answers(rgb.float())
        losses, sizes = model(rgb, target)
        loss = (losses + self.multipliers * sizes * (8 / self.side**2)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        norms = [nn.utils.clip_grad_norm_(group, self.recipe.clip) for group in self.groups]
        if not all(math.isfinite(norm) for norm in norms):
            self.bad += 1
            if self.bad > MOST_BAD_STEPS:
                raise TrainingError(
                    f"training diverged at step {self.step}: loss {loss.item():g}; lower the learning rates"
                    f" (tables {self.recipe.table_rate:g}, network {self.recipe.network_rate:g}) or the multipliers"
                )
            return
        self.bad = 0
        for group, rate in zip(self.optimizer.param_groups, self.recipe.rates(self.step), strict=True):
            group["lr"] = rate
        self.optimizer.step()
        self.joint.clamp()
        self.average.update_parameters(self.joint)
        self.sums += torch.cat([loss.detach()[None], sizes.detach()]).cpu()

    def _averaged(self) -> Joint:
        joint = self.average.module
        assert isinstance(joint, Joint)
        return joint

    def _is_over(self) -> bool:
        best = min(range(len(self.history)), key=lambda i: self.history[i].objective)
        waited = len(self.history) - 1 - best
        impatient = self.recipe.patience is not None and waited >= self.recipe.patience
        return self.step >= self.recipe.steps or impatient

    def _note(self) -> str:
        last = self.history[-1]
        points = " ".join(f"{b:.0f}B:{s:.0%}" for b, s in zip(last.bytes, last.score, strict=True))
        return f"loss {last.loss:.3f} · search {points}" if math.isfinite(last.loss) else f"search {points}"

    # -- validation and checkpoints

    def _validate(self) -> None:
        """Validate the moving average with real files, calibrate the rate, keep a checkpoint; rank 0 does the work."""

        def work() -> tuple[Validation, Calibrated]:
            averaged = self._averaged()
            scores = validate(self.task, averaged.network, averaged.tables(), self.search, self.codec)
            since = self.step - (self.history[-1].step if self.history else 0)
            means = (self.sums / max(since, 1)).tolist()
            estimated = {"loss": means[0], "estimated_bytes": means[1:]} if since else {}
            return validation_of(self.step, scores, self.multipliers.tolist(), self.search, estimated), calibrate(
                averaged, self.few, self.recipe
            )

        validation, self.joint.rate = by_first(work)
        self.sums.zero_()
        self.history.append(validation)
        if validation.objective <= min(v.objective for v in self.history):
            self.best_state = {k: v.detach().cpu().clone() for k, v in self._averaged().state_dict().items()}
        if rank() == 0:
            checkpoint.save(self)

    def best(self) -> tuple[nn.Module, list[QTables]]:
        """The network and the tables that were validated best."""
        joint = copy.deepcopy(self._averaged())
        joint.load_state_dict(self.best_state)
        return joint.network.eval().cpu(), joint.tables()
