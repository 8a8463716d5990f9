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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler

from qtable import dct
from qtable.codec import RGB, Codec
from qtable.data import ImageSet, Photos
from qtable.evaluate import Evaluator, Score
from qtable.files import write_atomically
from qtable.layer import HIGHEST_STEP, LOWEST_STEP, JPEGLayer
from qtable.rate import PROXIES, Calibrated, RunLength, calibrated
from qtable.rounding import named
from qtable.tables import QTables
from qtable.task import COLUMNS, Classifier

Learn = Literal["both", "tables", "network"]
Loss = Literal["distillation", "labels"]
Watch = Callable[[str, int, int, str], None]
T = TypeVar("T")

WARM_UP: Final = 0.05
"""The part of a run in which the learning rates rise."""
CALIBRATION_PHOTOS: Final = 32
CALIBRATION_QUALITIES: Final = (5, 15, 40, 80)
MOST_BAD_STEPS: Final = 20
"""After so many steps in a row without a finite gradient a run is given up."""
_WITHOUT_UNIT: Final = ("1/L1", "L1")
"""Rate proxies whose map to bytes is a power, not a line."""


class TrainingError(ValueError):
    """Training cannot begin, go on or be continued; the message says why and what to do."""


@dataclass(frozen=True)
class Recipe:
    """How to train. ValueError, naming the field, for what cannot be.

    learn: "both", "tables" (the network stays) or "network" (the tables stay). loss: "distillation" (divergence of
    the answer from that of the untrained network on the uncompressed photo; no labels) or "labels" (cross-entropy).
    steps, batch: optimizer steps, and photos of each. table_rate: learning rate of log(steps); network_rate: of the
    weights (AdamW, cosine schedules). settle: the last part of the run, in which tables stay. average: decay of the
    moving average of weights and tables that is validated and exported. clip: largest gradient norm of each.
    rate: a name in `rate.PROXIES`. rounding: a name in `rounding.ROUNDINGS`. every: steps between validations on
    `search`. patience: validations without improvement after which the run ends (None: never). crop: side in pixels
    of the random crops (None: the largest that all photos have). flip: mirror half of the photos.
    """

    learn: Learn = "both"
    loss: Loss = "distillation"
    steps: int = 800
    batch: int = 60
    table_rate: float = 0.01
    network_rate: float = 1e-3
    settle: float = 0.3
    average: float = 0.98
    clip: float = 1.0
    rate: str = "run-length"
    rounding: str = "ste"
    every: int = 100
    patience: int | None = None
    crop: int | None = None
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.learn not in get_args(Learn):
            raise ValueError(f"learn {self.learn!r} is unknown; allowed: {', '.join(get_args(Learn))}")
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss {self.loss!r} is unknown; allowed: {', '.join(get_args(Loss))}")
        if self.rate not in PROXIES:
            raise ValueError(f"rate {self.rate!r} is unknown; allowed: {', '.join(PROXIES)}")
        named(self.rounding)
        for name in ("steps", "batch", "every", "table_rate", "network_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}; allowed: above 0")
        for name, low in (("settle", 0.0), ("average", 0.0)):
            if not low <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}; allowed: from 0 to below 1")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience {self.patience}; allowed: 1 or more")
        if self.crop is not None and self.crop < 8:
            raise ValueError(f"crop {self.crop}; allowed: 8 pixels or more")

    @property
    def tables_learn_for(self) -> int:
        """Steps after which the tables stay."""
        return 0 if self.learn == "network" else round(self.steps * (1 - self.settle if self.learn == "both" else 1))

    def rates(self, step: int) -> tuple[float, float]:
        """Learning rates of tables and network at a step: warm-up, then half a cosine; 0 for what stays."""

        def schedule(most: float, steps: int) -> float:
            if step >= steps:
                return 0.0
            return most * min(1.0, (step + 1) / (WARM_UP * steps)) * (1 + math.cos(math.pi * step / steps)) / 2

        network = 0.0 if self.learn == "tables" else schedule(self.network_rate, self.steps)
        return schedule(self.table_rate, self.tables_learn_for), network


@dataclass(frozen=True)
class Validation:
    """What real files of the `search` photos gave after `step` steps, per operating point.

    tables: their values, [k, t, 8, 8]. bytes: mean file sizes. score: top-1 accuracy. objective: mean over the points
    of cross-entropy + multiplier * bits per pixel. loss, estimated_bytes: of the batches since the validation before,
    as training estimated them.
    """

    step: int
    tables: list[list[list[list[int]]]]
    bytes: list[float]
    score: list[float]
    objective: float
    loss: float = math.nan
    estimated_bytes: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """A network with a set of tables for each operating point, as validated best; every validation, first to last."""

    network: nn.Module
    tables: list[QTables]
    history: list[Validation]
    interrupted: bool = False

    @property
    def best(self) -> Validation:
        """The validation with the smallest objective."""
        return min(self.history, key=lambda v: v.objective)


# ---- photos ---------------------------------------------------------------------------------------------------


class Draw(NamedTuple):
    """One training example: a photo, where in it (0..1 of what the crop leaves), whether mirrored."""

    photo: int
    top: float
    left: float
    mirrored: bool


class Draws(Sampler[list[Draw]]):
    """What each step from `first` on sees: photos in a new order each epoch; the same for the same seed and step.

    rank, world, points: this process takes every `world`-th run of `points` examples of a batch, so that an example
    has the same operating point however many processes there are.
    """

    def __init__(
        self, photos: int, recipe: Recipe, first: int = 0, rank: int = 0, world: int = 1, points: int = 1
    ) -> None:
        self.photos, self.recipe, self.first = photos, recipe, first
        self.rank, self.world, self.points = rank, world, points

    def __len__(self) -> int:
        return self.recipe.steps - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.first, self.recipe.steps):
            yield [d for i, d in enumerate(self.step(step)) if i // self.points % self.world == self.rank]

    def step(self, step: int) -> list[Draw]:
        """The whole batch of a step."""
        batch, seed = self.recipe.batch, self.recipe.seed
        places = np.arange(step * batch, (step + 1) * batch)
        orders = {
            epoch: np.random.default_rng([seed, 0, epoch]).permutation(self.photos)
            for epoch in np.unique(places // self.photos).tolist()
        }
        rng = np.random.default_rng([seed, 1, step])
        where, mirrored = rng.random((batch, 2)), rng.random(batch) < 0.5 * self.recipe.flip
        return [
            Draw(int(orders[place // self.photos][place % self.photos]), float(y), float(x), bool(m))
            for place, (y, x), m in zip(places.tolist(), where, mirrored, strict=True)
        ]


class Crops(Dataset[tuple[Tensor, int]]):
    """uint8 [3, side, side] and label of each `Draw`: cropped and mirrored before compression, as a camera would."""

    def __init__(self, photos: Photos, side: int) -> None:
        self.photos, self.side = photos, side

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        image = self.photos.images[draw.photo]
        top, left = (
            min(int(share * (size - self.side + 1)), size - self.side)
            for share, size in zip((draw.top, draw.left), image.shape[:2], strict=True)
        )
        crop = image[top : top + self.side, left : left + self.side]
        crop = crop[:, ::-1] if draw.mirrored else crop
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))), int(self.photos.labels[draw.photo])


def crop_side(photos: Photos, recipe: Recipe) -> int:
    """The side of the training crops. TrainingError if a photo is smaller than the recipe's."""
    smallest = min(min(image.shape[:2]) for image in photos.images)
    if recipe.crop is not None and recipe.crop > smallest:
        raise TrainingError(f"crop {recipe.crop}: the smallest photo has a side of {smallest} pixels")
    return recipe.crop or smallest


# ---- the model that is trained --------------------------------------------------------------------------------


class Joint(nn.Module):
    """A network behind one `JPEGLayer` for each operating point; gives each point's task loss and bytes.

    rate: estimates bytes per photo; replaced when it is calibrated anew.
    """

    def __init__(self, network: nn.Module, starts: Sequence[QTables], codec: Codec, recipe: Recipe) -> None:
        super().__init__()
        self.network = network.requires_grad_(recipe.learn != "tables")
        self.layers = nn.ModuleList(JPEGLayer(tables, codec, recipe.rounding) for tables in starts)
        for layer in self.layers:
            layer.requires_grad_(recipe.learn != "network")
        self.codec = codec
        self.rate = Calibrated(_proxy(recipe, codec), 0.0, 1.0)

    def forward(self, rgb: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean task loss in nats and mean estimated bytes of each point, [k] each.

        rgb: uint8 [n, 3, h, w]; photo i goes to point i modulo k. target: int64 [n] labels, or float [n, classes],
        log-probabilities to diverge from.
        """
        count = len(self.layers)
        pixels = torch.cat([layer(rgb[i::count])[0] for i, layer in enumerate(self.layers)])
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        losses = task_loss(self.network(pixels), torch.cat([target[i::count] for i in range(count)]))
        sizes = [
            self.rate(dct.coefficients(rgb[i::count].float(), self.codec.subsampling), layer.steps()).mean()
            for i, layer in enumerate(self._layers())
        ]
        parts = torch.split(losses, [len(range(i, len(rgb), count)) for i in range(count)])
        return torch.stack([part.mean() for part in parts]), torch.stack(sizes)

    def train(self, mode: bool = True) -> Joint:
        """A network that does not learn stays in evaluation mode: its batch norm statistics stay as well."""
        super().train(mode)
        learns = any(parameter.requires_grad for parameter in self.network.parameters())
        self.network.train(mode and learns)
        return self

    def tables(self) -> list[QTables]:
        """The integer tables of each operating point."""
        return [layer.tables() for layer in self._layers()]

    def clamp(self) -> None:
        """Steps back into 1..255, so that none is so far outside that its gradient must lead it back for long."""
        with torch.no_grad():
            for layer in self._layers():
                layer.log_steps.clamp_(math.log(LOWEST_STEP), math.log(HIGHEST_STEP))

    def settle(self, tables: Sequence[QTables]) -> None:
        """The layers' steps become exactly `tables`."""
        with torch.no_grad():
            for layer, values in zip(self._layers(), tables, strict=True):
                layer.log_steps.copy_(torch.tensor(values.values, dtype=torch.float32).log())

    def _layers(self) -> Iterator[JPEGLayer]:
        for layer in self.layers:
            assert isinstance(layer, JPEGLayer)
            yield layer


def task_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Nats per photo, [n]: cross-entropy for int64 labels, KL(target || answer) for log-probabilities."""
    if target.dtype == torch.int64:
        return F.cross_entropy(logits, target, reduction="none")
    divergence: Tensor = F.kl_div(F.log_softmax(logits, 1), target, log_target=True, reduction="none").sum(1)
    return divergence


def _proxy(recipe: Recipe, codec: Codec) -> Any:
    return RunLength(codec) if recipe.rate == "run-length" else PROXIES[recipe.rate]


def calibrate(joint: Joint, photos: Sequence[RGB], recipe: Recipe) -> Calibrated:
    """The rate proxy fitted to mean sizes of real files: of the operating points' tables and some standard ones."""
    every = [*joint.tables(), *map(QTables.standard, CALIBRATION_QUALITIES)]
    proxy = _proxy(recipe, joint.codec)
    rgb = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float()
    planes = dct.coefficients(rgb, joint.codec.subsampling)
    estimates, sizes = [], []
    for tables in every:
        steps = torch.tensor(tables.components(), dtype=torch.float32)
        estimates.append(float(proxy(planes, steps).mean()))
        sizes.append(float(np.mean([len(joint.codec.encode(photo, tables)) for photo in photos])))
    return calibrated(proxy, estimates, sizes, log=recipe.rate in _WITHOUT_UNIT)


# ---- multipliers ----------------------------------------------------------------------------------------------


def slopes(
    network: nn.Module,
    photos: Photos,
    codec: Codec,
    path: Sequence[QTables],
    points: Sequence[int],
    recipe: Recipe,
    reach: int = 4,
) -> list[float]:
    """For each of `points` in `path` the multiplier (nats per bit per pixel) that holds it there.

    path: tables from many bytes to few. The multiplier is -d loss / d bits per pixel along the path, measured with
    real files of `photos` between the tables `reach` before and after the point; never below 1e-4.
    """
    classes = Classifier(copy.deepcopy(network))
    found = []
    with torch.no_grad():
        batches = photos.batches()
        clean = [
            torch.from_numpy(photos.labels[at])
            if recipe.loss == "labels"
            else F.log_softmax(classes.logits(_stack([photos.images[i] for i in at])), 1)
            for at in batches
        ]

        def measured(tables: QTables) -> tuple[float, float]:
            losses, bits, pixels = [], 0, 0
            for at, target in zip(batches, clean, strict=True):
                files = [codec.encode(photos.images[i], tables) for i in at]
                losses.append(task_loss(classes.logits(_stack([codec.decode(file) for file in files])), target))
                bits += 8 * sum(map(len, files))
                pixels += sum(photos.images[i].shape[0] * photos.images[i].shape[1] for i in at)
            return float(torch.cat(losses).mean()), bits / pixels

        for point in points:
            more = measured(path[max(point - reach, 0)])
            less = measured(path[min(point + reach, len(path) - 1)])
            found.append(max(1e-4, (less[0] - more[0]) / max(more[1] - less[1], 1e-9)))
    return found


def _stack(images: Sequence[RGB]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


# ---- training -------------------------------------------------------------------------------------------------


def train(
    network: nn.Module,
    starts: Sequence[QTables],
    multipliers: Sequence[float],
    images: ImageSet,
    codec: Codec,
    recipe: Recipe,
    out: Path,
    identity: Mapping[str, Any],
    device: str | torch.device = "cpu",
    watch: Watch = lambda *_: None,
) -> Trained:
    """Train on `fit`, validate on `search`, keep a checkpoint in `out`; the same call continues from it.

    network: RGB float [n, 3, h, w], 0..255, to logits; it is not changed, a copy is trained. starts, multipliers: one
    for each operating point. Where `torch.distributed` is initialized, each process takes its share of each batch.

    A run that is killed and continued ends as an undisturbed one, to the last bit where torch's sums are the same from
    run to run: with one thread (OMP_NUM_THREADS=1).

    Ctrl-C ends it with what was validated best by then. TrainingError if the run in `out` is another one, if a share
    of a batch has fewer photos than there are points, or if training diverges.
    """
    if not starts or len(starts) != len(multipliers):
        raise TrainingError(f"{len(starts)} starting tables and {len(multipliers)} multipliers; one of each per point")
    if not all(math.isfinite(m) and m >= 0 for m in multipliers):
        raise TrainingError(f"multipliers {list(multipliers)}; allowed: finite and not negative")
    if recipe.batch // _world() < len(starts):
        raise TrainingError(f"batch {recipe.batch} for {len(starts)} operating points in {_world()} processes")
    run = _Run(network, starts, multipliers, images, codec, recipe, out, identity, device)
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
        network: nn.Module,
        starts: Sequence[QTables],
        multipliers: Sequence[float],
        images: ImageSet,
        codec: Codec,
        recipe: Recipe,
        out: Path,
        identity: Mapping[str, Any],
        device: str | torch.device,
    ) -> None:
        self.recipe, self.codec, self.out = recipe, codec, out
        self.device = torch.device(device)
        self.multipliers = torch.tensor(multipliers, dtype=torch.float32, device=self.device)
        self.teacher = copy.deepcopy(network).eval().requires_grad_(False).to(self.device)
        self.fit, self.search = images.fit, images.search
        self.side = crop_side(self.fit, recipe)
        few = np.linspace(0, len(self.fit) - 1, min(len(self.fit), CALIBRATION_PHOTOS)).astype(int)
        self.few = [Crops(self.fit, self.side)[Draw(int(i), 0.5, 0.5, False)][0].permute(1, 2, 0).numpy() for i in few]
        self.joint = Joint(copy.deepcopy(network), starts, codec, recipe).to(self.device)
        convert_conv2d_weight_memory_format(self.joint.network, torch.channels_last)  # faster on a CPU
        decay = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.joint, multi_avg_fn=decay, use_buffers=True)
        self.average.update_parameters(self.joint)
        tables = [layer.log_steps for layer in self.joint._layers()]
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
        self.path = out / "checkpoint.safetensors"
        out.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._load()
        else:
            self.joint.rate = calibrate(self.joint, self.few, recipe)

    # -- the loop

    def go(self, watch: Watch) -> None:
        recipe = self.recipe
        if not self.history:
            self._validate()
        draws = Draws(len(self.fit), recipe, self.step, _rank(), _world(), len(self.multipliers))
        batches = DataLoader(Crops(self.fit, self.side), batch_sampler=draws)
        model: nn.Module = self.joint if _world() == 1 else DistributedDataParallel(self.joint)
        self.joint.train()
        if self._is_over():
            return
        for rgb, labels in batches:
            if self.step == recipe.tables_learn_for and recipe.learn == "both":
                tables = self._averaged().tables()
                self.joint.settle(tables)
                self._averaged().settle(tables)
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(recipe.seed * 1_000_003 + self.step)  # dropout and noisy roundings follow the step
                self._descend(model, rgb.to(self.device), labels.to(self.device))
            self.step += 1
            if self.step % recipe.every == 0 or self.step == recipe.steps:
                self._validate()
                if self._is_over():
                    watch("training", recipe.steps, recipe.steps, self._note())
                    return
            watch("training", self.step, recipe.steps, self._note())

    def _descend(self, model: nn.Module, rgb: Tensor, labels: Tensor) -> None:
        target = labels
        if self.recipe.loss == "distillation":
            with torch.no_grad():
                target = F.log_softmax(self.teacher(rgb.float()), 1)
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
            scores = validate(averaged.network, averaged.tables(), self.search, self.codec, self.device)
            since = self.step - (self.history[-1].step if self.history else 0)
            means = (self.sums / max(since, 1)).tolist()
            estimated = {"loss": means[0], "estimated_bytes": means[1:]} if since else {}
            return _validation(self.step, scores, self.multipliers.tolist(), self.search, estimated), calibrate(
                averaged, self.few, self.recipe
            )

        validation, self.joint.rate = _by_first(work)
        self.sums.zero_()
        self.history.append(validation)
        if validation.objective <= min(v.objective for v in self.history):
            self.best_state = {k: v.detach().cpu().clone() for k, v in self._averaged().state_dict().items()}
        if _rank() == 0:
            self._save()

    def best(self) -> tuple[nn.Module, list[QTables]]:
        """The network and the tables that were validated best."""
        joint = copy.deepcopy(self._averaged())
        joint.load_state_dict(self.best_state)
        return joint.network.eval().cpu(), joint.tables()

    def _save(self) -> None:
        tensors = {
            **_prefixed("joint.", self.joint.state_dict()),
            **_prefixed("average.", self.average.state_dict()),
            **_prefixed("best.", self.best_state),
        }
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= _prefixed(f"optimizer.{i}.", state)
        facts = {
            "identity": self.identity,
            "step": self.step,
            "bad": self.bad,
            "rate": [self.joint.rate.offset, self.joint.rate.slope],
            "history": [asdict(v) for v in self.history],
        }
        data = safetensors.torch.save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            {"qtable": json.dumps(facts)},
        )
        write_atomically(self.path, data)

    def _load(self) -> None:
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                facts = json.loads((file.metadata() or {})["qtable"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for key in sorted({*facts["identity"], *self.identity}):
                was, now = facts["identity"].get(key), self.identity.get(key)
                if was != now:
                    changed = (
                        {k: (was.get(k), now.get(k)) for k in now if was.get(k) != now.get(k)}
                        if (isinstance(was, dict) and isinstance(now, dict))
                        else (was, now)
                    )
                    raise TrainingError(
                        f"{self.out} holds another training: its {key} differs: {changed}; choose another --out"
                    )
            self.joint.load_state_dict(_without("joint.", tensors))
            self.average.load_state_dict(_without("average.", tensors))
            self.best_state = _without("best.", tensors)
            states: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _without("optimizer.", tensors).items():
                index, key = name.split(".", 1)
                states.setdefault(int(index), {})[key] = tensor
            self.optimizer.load_state_dict(
                {"state": states, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
            self.step, self.bad = int(facts["step"]), int(facts["bad"])
            self.history = [Validation(**v) for v in facts["history"]]
            offset, slope = facts["rate"]
            proxy, log = _proxy(self.recipe, self.codec), self.recipe.rate in _WITHOUT_UNIT
            self.joint.rate = Calibrated(proxy, offset, slope, log)
        except TrainingError:
            raise
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise TrainingError(
                f"{self.path}: not a checkpoint of this training ({first}); choose another --out"
            ) from None


def validate(
    network: nn.Module, tables: Sequence[QTables], photos: Photos, codec: Codec, device: str | torch.device = "cpu"
) -> list[Score]:
    """What `qtable evaluate` measures: the network on real files of the photos, top-1, one score for each tables."""
    with Evaluator(photos, Classifier(copy.deepcopy(network), device=device), codec) as evaluator:
        return evaluator.many(tables)


def _validation(
    step: int, scores: Sequence[Score], multipliers: Sequence[float], photos: Photos, estimated: Mapping[str, Any]
) -> Validation:
    pixels = np.array([image.shape[0] * image.shape[1] for image in photos.images])
    objectives = [
        float(s.outcomes[:, COLUMNS.index("cross-entropy")].mean()) + m * float((8 * s.photo_bytes / pixels).mean())
        for s, m in zip(scores, multipliers, strict=True)
    ]
    sizes, right = [s.bytes for s in scores], [s.score for s in scores]
    tables = [s.tables.values.tolist() for s in scores]
    return Validation(step, tables, sizes, right, float(np.mean(objectives)), **estimated)


def answered(network: nn.Module, photos: Photos) -> Photos:
    """The photos with the network's answers on them, uncompressed, as their labels: what agreement is about."""
    task, answers = Classifier(copy.deepcopy(network)), np.empty(len(photos), np.int64)
    for at in photos.batches():
        answers[at] = task.targets([photos.images[i] for i in at], np.zeros(len(at), np.int64))[:, 1]
    return replace(photos, labels=answers)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _without(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# ---- several processes ----------------------------------------------------------------------------------------


def _rank() -> int:
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _world() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _by_first(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, in all of them; its error, in all of them as well."""
    if _world() == 1:
        return work()
    box: list[Any] = [None]
    if _rank() == 0:
        try:
            box = [work()]
        except Exception as error:
            box = [error]
    distributed.broadcast_object_list(box)
    if isinstance(box[0], Exception):
        raise box[0]
    result: T = box[0]
    return result
