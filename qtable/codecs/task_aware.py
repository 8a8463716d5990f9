"""`TaskAware`: plain JPEG whose levels were chosen for what networks feel at each coefficient of each photo.

The tables are those of a trade-off of weighted error and bits; the levels are those of least weighted error at the
same trade-off (`qtable.jpeg.trellis`), with the weights of the photo (`qtable.codecs.looking`). Every decoder reads the
files. Labels are never looked at.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt

from qtable.codecs.base import Coder
from qtable.codecs.looking import Look, Squares, Usual, seen_blocks, squared_gradients, weights_of
from qtable.jpeg import dct
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.coefficients import Coefficients, write_coefficients
from qtable.jpeg.tables import QTables
from qtable.jpeg.trellis import trellis
from qtable.tasks.base import DifferentiableTask, ModelError
from qtable.tasks.gradients import stacked
from qtable.tasks.opening import TaskSpec, weights_digest

Effort = Literal["frequency", "crop", "photo"]
EFFORTS: Final[tuple[Effort, ...]] = get_args(Effort)
LOOKS: Final = {f.name: isinstance(f.default, int) for f in fields(Look)}
"""The numbers of a `Look`, and which are whole."""
MOST_KEPT: Final = 512 << 20
"""Bytes of weights that are kept in memory: a front asks for those of the same photo again and again."""


@dataclass(frozen=True)
class Network:
    """A network that is looked through, and what is usual for it (see `Usual`).

    model: as a user named it, None for the embedded one; for people. weights: digest of its weights, by which it is
    found among the tasks that were lent (`lend`): another network is refused, and no code runs because a file names
    it. feeling, error: 192 numbers each, of Y, Cb, Cr and natural frequency.
    """

    model: str | None
    weights: str
    feeling: tuple[float, ...]
    error: tuple[float, ...]

    @classmethod
    def of(cls, spec: TaskSpec, task: DifferentiableTask, usual: Usual) -> Self:
        """The network of an open task, which is lent to the encoders of this process."""
        return cls(spec.model, lend(task), _numbers(usual.feeling), _numbers(usual.error))

    def __post_init__(self) -> None:
        for name in ("feeling", "error"):
            values = np.array(getattr(self, name), float)
            if values.shape != (192,) or not (np.isfinite(values) & (values >= 0)).all():
                raise ValueError(f"{name} of a network: {values.size} numbers; expected 192, finite, not negative")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `asdict`. KeyError, TypeError or ValueError for anything else."""
        _check_names(data, [f.name for f in fields(cls)])
        model, weights = data["model"], data["weights"]
        if not isinstance(model, str | None) or not isinstance(weights, str):
            raise ValueError(f"model {model!r:.40} and weights {weights!r:.40} of a network; expected words")
        return cls(model, weights, *(tuple(_number(x) for x in data[name]) for name in ("feeling", "error")))

    @property
    def usual(self) -> Usual:
        """What is usual for it."""
        return Usual(np.array(self.feeling).reshape(3, 64), np.array(self.error).reshape(3, 64))

    def task(self) -> DifferentiableTask:
        """The task that was lent. ModelError if none with these weights was."""
        if self.weights in _lent:
            return _lent[self.weights]
        if self.model is None:
            lend(TaskSpec(metric="agreement").open())
        if self.weights not in _lent:
            others = f"; given are others, of weights {', '.join(d[:8] for d in _lent)}" if _lent else ""
            raise ModelError(
                f"these files are made by looking through {self.model or 'the embedded network'} (weights"
                f" {self.weights[:8]}): name that model{others}"
            )
        return _lent[self.weights]


_lent: dict[str, DifferentiableTask] = {}


def lend(task: DifferentiableTask) -> str:
    """Let the encoders of this process look through a task's network; returns the digest of its weights."""
    digest = weights_digest(task.model)
    _lent[digest] = task
    return digest


def _numbers(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{x:.6g}") for x in values.ravel())


def _check_names(data: Mapping[str, Any], names: Iterable[str]) -> None:
    """ValueError for more or fewer than these: a coder that means more than it is read as makes other files."""
    if set(data) != set(names):
        raise ValueError(f"{list(data)!s:.80} instead of {', '.join(names)}")


def _number(value: Any, whole: bool = False) -> Any:
    """A number of a JSON value. ValueError for anything else, and for whole ones beyond all floats."""
    known = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not known or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{value!r:.40} is no {'whole ' if whole else ''}number")
    return value


class Prepared(NamedTuple):
    """What of a photo does not depend on tables: coefficients and weights, each as `Squares`."""

    planes: Squares
    weights: Squares


@dataclass(frozen=True)
class TaskAware(Coder, kind="task-aware"):
    """Tables and levels for networks. ValueError for what cannot be.

    multiplier: what one bit is worth, in shares of the usual cost of a block (see `weights_of`). effort: "frequency",
    one weight for each frequency, no network is asked; "crop", these, and nothing where no network looks; "photo",
    weights of the photo. networks: looked through together, their weights averaged. iterations: of the trellis.
    """

    quantization: QTables
    multiplier: float
    networks: tuple[Network, ...]
    effort: Effort = "photo"
    codec: Codec = field(default_factory=Codec)
    look: Look = field(default_factory=Look)
    iterations: int = 2

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise ValueError(f"effort {self.effort!r:.40} is unknown; allowed: {', '.join(EFFORTS)}")
        if self.codec.entropy != "optimized":
            raise ValueError(f"task-aware files have optimized Huffman tables, not entropy coding {self.codec.entropy}")
        if not (0 <= self.multiplier < float("inf") and self.networks and self.iterations >= 0):
            raise ValueError(
                f"multiplier {self.multiplier}, {len(self.networks)} networks, {self.iterations} iterations;"
                " allowed: finite and not negative, 1 or more, 0 or more"
            )

    @property
    def name(self) -> str:
        return f"task-aware ({self.effort}), {self.codec.subsampling}"

    @property
    def tables(self) -> QTables:
        return self.quantization

    def check(self) -> None:
        """ModelError if a network that is asked was not lent."""
        for network in self.networks if self.effort != "frequency" else ():
            network.task()

    def encode(self, photo: RGB) -> bytes:
        """A whole baseline file. ModelError if a network fails on the photo, or gives no gradients."""
        return self.encode_all([photo])[0]

    def encode_all(self, photos: Sequence[RGB]) -> list[bytes]:
        """The files of photos of one size; on accelerators with one gradient pass for all."""
        return [
            write_coefficients(
                self.levels(prepared), self.quantization, photo.shape[0], photo.shape[1], self.codec.subsampling
            )
            for photo, prepared in zip(photos, self.prepared(photos), strict=True)
        ]

    def levels(self, prepared: Prepared) -> Coefficients:
        """The quantized coefficients."""
        sampling = self.codec.subsampling
        return trellis(*prepared, self.quantization, self.multiplier, sampling, self.iterations)

    def prepared(self, photos: Sequence[RGB]) -> list[Prepared]:
        """Coefficients and weights of photos of one size; the latest are remembered."""
        keys = [
            (self.networks, self.effort, self.codec, self.look, sha256(photo.tobytes()).digest()) for photo in photos
        ]
        found = [_kept.get((key, photo.shape)) for key, photo in zip(keys, photos, strict=True)]
        missing = [i for i, prepared in enumerate(found) if prepared is None]
        if missing:
            for i, prepared in zip(missing, self.prepare([photos[i] for i in missing]), strict=True):
                found[i] = prepared
                _kept.put((keys[i], photos[i].shape), prepared)
        return [prepared for prepared in found if prepared is not None]

    def prepare(self, photos: Sequence[RGB]) -> list[Prepared]:
        """What `prepared` remembers, made anew."""
        planes = dct.coefficients(stacked(photos), self.codec.subsampling)
        y, cb, cr = (np.ascontiguousarray(plane.numpy()) for plane in planes)
        total: list[Squares] | None = None
        for network in self.networks:
            weights = self._weights(network, photos, (y[0], cb[0], cr[0]))
            total = weights if total is None else [_sum(a, b) for a, b in zip(total, weights, strict=True)]
        assert total is not None
        return [Prepared((y[i], cb[i], cr[i]), self._mean(weights)) for i, weights in enumerate(total)]

    def _mean(self, total: Squares) -> Squares:
        y, cb, cr = (plane / np.float32(len(self.networks)) for plane in total)
        return y, cb, cr

    def _weights(self, network: Network, photos: Sequence[RGB], like: Squares) -> list[Squares]:
        """By one network; planes of the shapes of `like`."""
        usual, seen = network.usual, None
        if self.effort != "frequency":
            seen = _seen(network, *photos[0].shape[:2], self.codec)
        if self.effort == "photo":
            return [weights_of(each, usual, self.look, seen) for each in self._squares(network.task(), photos)]
        y, cb, cr = (
            np.broadcast_to(mean.reshape(8, 8).astype(np.float32), plane.shape)
            for mean, plane in zip(usual.feeling, like, strict=True)
        )
        return [weights_of((y, cb, cr), usual, self.look, seen)] * len(photos)

    def _squares(self, task: DifferentiableTask, photos: Sequence[RGB]) -> list[Squares]:
        """On a processor photo by photo: a network's sums depend on how many it is given, and files must not.

        On accelerators sums are not reproducible anyway.
        """
        together = [photos] if task.device.type != "cpu" else [[photo] for photo in photos]
        return [each for part in together for each in squared_gradients(task, part, self.codec, self.look)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "tables": self.quantization.values.tolist(),
            "multiplier": self.multiplier,
            "effort": self.effort,
            "subsampling": self.codec.subsampling,
            "look": asdict(self.look),
            "iterations": self.iterations,
            "networks": [asdict(network) for network in self.networks],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        _check_names(data["look"], LOOKS)
        return cls(
            QTables.from_dict({"values": data["tables"]}),
            _number(data["multiplier"]),
            tuple(Network.from_dict(network) for network in data["networks"]),
            data["effort"],
            Codec(data["subsampling"], "optimized"),
            Look(**{name: _number(data["look"][name], whole) for name, whole in LOOKS.items()}),
            _number(data["iterations"], whole=True),
        )


def _sum(one: Squares, other: Squares) -> Squares:
    y, cb, cr = (a + b for a, b in zip(one, other, strict=True))
    return y, cb, cr


@functools.lru_cache(maxsize=256)
def _seen(network: Network, height: int, width: int, codec: Codec) -> tuple[npt.NDArray[np.bool_], ...]:
    return tuple(seen_blocks(network.task(), height, width, codec.subsampling))


class _Kept:
    """The latest weights, up to `MOST_KEPT` bytes."""

    def __init__(self) -> None:
        self._lock, self._bytes = threading.Lock(), 0
        self._items: OrderedDict[Any, Prepared] = OrderedDict()

    def get(self, key: Any) -> Prepared | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: Any, prepared: Prepared) -> None:
        with self._lock:
            if key not in self._items:
                self._items[key] = prepared
                self._bytes += _size(prepared)
            while self._bytes > MOST_KEPT:
                self._bytes -= _size(self._items.popitem(last=False)[1])


def _size(prepared: Prepared) -> int:
    return sum(array.nbytes for part in prepared for array in part)


_kept = _Kept()
