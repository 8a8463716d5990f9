"""One photo: a file's bytes in, a JPEG file's bytes out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args

from qtable.codecs.base import Coder
from qtable.codecs.plain import TableCoder
from qtable.jpeg.codec import library_versions
from qtable.photos.metadata import Metadata, fitted, orientation, pillow, with_metadata
from qtable.photos.opening import MAX_PIXELS, Photo, check_size, read_photo
from qtable.photos.samples import PhotoError

MetadataPolicy = Literal["keep", "strip"]
Action = Literal["compressed", "kept", "copied", "shard", "skipped"]


class Skip(Exception):
    """This file is left out; the message is "reason" or "reason: detail"."""


@dataclass(frozen=True)
class Recipe:
    """What happens to each photo: `recipe(file's bytes) -> (file's bytes, action, note)`.

    metadata: "keep" copies EXIF, ICC profile and XMP and leaves the pixels as they are stored; "strip" copies nothing
    and turns the pixels upright. skip_larger: a JPEG that would not become smaller stays as it is (action "kept").
    max_pixels: larger photos are skipped. ValueError for anything else.
    """

    coder: Coder
    metadata: MetadataPolicy = "keep"
    skip_larger: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.metadata not in get_args(MetadataPolicy):
            raise ValueError(f"metadata {self.metadata!r} is unknown; allowed: {', '.join(get_args(MetadataPolicy))}")
        if self.max_pixels < 1:
            raise ValueError(f"at most {self.max_pixels} pixels; allowed: 1 or more")
        if self.skip_larger and self.metadata == "strip":
            raise ValueError(
                "photos kept because they would grow keep their metadata, too: skip-larger or strip, not both"
            )

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be continued; each part by itself, so that a difference can be named."""
        return {
            **_parts(self.coder),
            **library_versions(),
            "metadata": self.metadata,
            "skip_larger": self.skip_larger,
            "max_pixels": self.max_pixels,
        }

    def __call__(self, data: bytes) -> tuple[bytes, Action, str | None]:
        """Raises Skip for what cannot be kept faithfully as an RGB JPEG with 8 bits a sample."""
        photo = self._read(data)
        metadata, unfit = fitted(photo.metadata) if self.metadata == "keep" else (Metadata(), None)
        # upright also where what said how to turn it is too long for a JPEG
        image = photo.pixels if orientation(metadata) != 1 else photo.upright
        notes = [photo.reduced, *([photo.lost, unfit] if self.metadata == "keep" else [])]
        encoded = with_metadata(self.coder.encode(image), metadata)
        if self.skip_larger and photo.is_jpeg and len(encoded) >= len(data):
            return data, "kept", None
        return encoded, "compressed", "; ".join(note for note in notes if note) or None

    @property
    def most_bytes(self) -> int:
        """Larger files are not read, whatever they hold."""
        return 8 * self.max_pixels + (1 << 28)

    def check_bytes(self, size: int) -> None:
        """Raises Skip for files that are too large to be read."""
        if size > self.most_bytes:
            raise Skip(f"too large: {size} bytes")

    def _read(self, data: bytes) -> Photo:
        try:
            with pillow():  # for the whole photo: its limit of pixels may lie above Pillow's
                photo = read_photo(data, self.max_pixels)
            check_size(photo.pixels.shape[1], photo.pixels.shape[0], self.max_pixels)
        except PhotoError as error:
            raise Skip(str(error)) from None
        return photo


def _parts(coder: Coder) -> dict[str, Any]:
    """What a coder is, without long values: of these a digest."""
    parts = {} if isinstance(coder, TableCoder) else {"coder": coder.kind}  # plain tables' as journals always had them
    for key, value in coder.to_dict().items():
        short = isinstance(value, str | int | float)
        parts[key] = value if short else sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
    return parts | ({} if coder.tables is None else {"tables": coder.tables.digest()[:16]})
