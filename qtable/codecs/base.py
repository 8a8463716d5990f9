"""`Coder`: how a photo becomes a file and back; a value with a JSON form that remakes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from qtable.jpeg.codec import RGB, decode
from qtable.jpeg.tables import QTables
from qtable.kinds import Kinds

KINDS: Final[Kinds[Coder]] = Kinds(
    "a coder", {"tables": "qtable.codecs.plain", "task-aware": "qtable.codecs.task_aware"}
)
"""Coders by the name that files have for them."""


class Coder(ABC):
    """A way from photos to files. Frozen, hashable and equal by content: an archive finds evaluations by it.

    The same coder makes the same bytes of a photo, on any machine with the same libraries. A kind of coder is a
    subclass `class Mine(Coder, kind="mine")`; archives and table files find it by that name.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str) -> None:
        cls.kind = kind
        KINDS.add(kind, cls)

    @property
    @abstractmethod
    def name(self) -> str:
        """For people, in a few words."""

    @property
    def tables(self) -> QTables | None:
        """The quantization tables in its files, where all have the same ones."""
        return None

    def check(self) -> None:
        """ModelError if something is missing that it cannot encode without, such as a network."""
        return

    @abstractmethod
    def encode(self, photo: RGB) -> bytes:
        """A whole file of a photo, uint8 [h, w, 3]."""

    def encode_all(self, photos: Sequence[RGB]) -> list[bytes]:
        """The files of photos of one size, in order: what `encode` makes of each, for some coders faster together."""
        return [self.encode(photo) for photo in photos]

    def decode(self, data: bytes) -> RGB:
        """What everyone sees of a file, uint8 [h, w, 3]: for JPEG what libjpeg-turbo decodes."""
        return decode(data)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """A JSON form from which `from_dict` makes an equal coder."""

    @classmethod
    @abstractmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. KeyError, TypeError or ValueError for anything else."""

    def written(self) -> dict[str, Any]:
        """What `read` reads."""
        return {"kind": self.kind, **self.to_dict()}

    @staticmethod
    def read(data: Mapping[str, Any]) -> Coder:
        """From {"kind": ..., **to_dict()}. KeyError, TypeError or ValueError for anything else; see `Kinds.of`."""
        return KINDS.of(data).from_dict(data)
