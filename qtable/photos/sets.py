"""`ImageSet`: photos and what is known of them in three named splits, `fit`, `search` and `test`.

Statistics and training see `fit`, searchers are scored on `search`, and what is reported comes from `test`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from qtable.jpeg.codec import RGB
from qtable.photos.files import DataError, File, Listing
from qtable.photos.given import Indexed, given
from qtable.photos.labels import ClassList
from qtable.photos.opening import open_photo
from qtable.photos.pixels import MEMORY, Cache, Known, Pixels, digests_of, sizes_of
from qtable.photos.readers import read_listing
from qtable.photos.readers.places import counted
from qtable.photos.samples import PhotoError
from qtable.photos.where import where
from qtable.progress import Progress
from qtable.storage import StorageError, is_remote

Split = Literal["fit", "search", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
SHARES: Final[dict[Split, float]] = {"fit": 0.3, "search": 0.3, "test": 0.4}
"""The share of the photos that falls, by content hash, into each split."""
REMOTE_THREADS: Final = 16
"""Photos of remote storage that are read side by side: most of the time of each is waiting for its first byte."""


Annotations = npt.NDArray[np.int64] | tuple[Any, ...] | None
"""What is known of photos, one item a photo: class indices int64 [n], anything else that a task reads, or nothing."""


def chosen(annotations: Annotations, at: Sequence[int] | npt.NDArray[np.intp]) -> Annotations:
    """Some of the annotations, of the same kind."""
    if isinstance(annotations, np.ndarray):
        return annotations[np.asarray(at, np.intp)]
    return annotations and tuple(annotations[i] for i in at)


def collected(annotations: Sequence[Any]) -> Annotations:
    """Annotations one by one -> together: int64 [n] if all are whole numbers, None if there are none."""
    if all(one is None for one in annotations):
        return None
    whole = all(isinstance(one, int | np.integer) for one in annotations)
    return np.array(annotations, np.int64) if whole else tuple(annotations)


@dataclass(frozen=True)
class Photos:
    """The photos of one split: uint8 [h, w, 3] each, any sizes; their annotations; names for people.

    images: arrays, or `Pixels`, which are opened whenever they are asked for.
    """

    images: Sequence[RGB]
    annotations: Annotations
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> Photos:
        """The photos at `indices`, in that order."""
        at = np.asarray(indices, dtype=np.intp)
        few = self.images.subset(at) if isinstance(self.images, Pixels) else tuple(self.images[i] for i in at)
        return Photos(few, self.annotated(at), tuple(self.names[i] for i in at))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each photo, in pixels; none is opened for it."""
        return sizes_of(self.images)

    def annotated(self, at: npt.NDArray[np.intp]) -> Annotations:
        """The annotations of the photos at these indices, of the same kind."""
        return chosen(self.annotations, at)

    def batches(self, most_photos: int = 32, most_pixels: int = 1 << 21) -> list[npt.NDArray[np.intp]]:
        """Indices in batches of photos of equal size; depends on the photos alone, never on threads."""
        by_shape: dict[tuple[int, int], list[int]] = {}
        for i, size in enumerate(self.sizes):
            by_shape.setdefault(size, []).append(i)
        batches = []
        for shape, members in by_shape.items():
            step = max(1, min(most_photos, most_pixels // (shape[0] * shape[1])))
            batches += [np.array(members[i : i + step], dtype=np.intp) for i in range(0, len(members), step)]
        return batches


@dataclass(frozen=True)
class ImageSet:
    """Three disjoint splits of photos, and what was noticed while reading them.

    classes: names of the class indices where known. skipped: (name, reason) of unreadable files.
    said: what a reader recognised and left aside, a line each.
    jpeg_sources: how many photos were JPEG files already (a second compression behaves differently).
    fingerprint: hex digest of all files and how they are opened (of all pixels where there are no files), annotations
    and splits; another fingerprint where any of it is another.
    """

    fit: Photos
    search: Photos
    test: Photos
    source: str
    classes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    said: tuple[str, ...] = ()
    jpeg_sources: int = 0
    fingerprint: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        empty = [name for name in SPLITS if not len(self[name])]
        if empty:
            total = sum(len(self[name]) for name in SPLITS)
            raise DataError(f"{self.source}: {total} readable photos leave {', '.join(empty)} empty; add photos")
        object.__setattr__(self, "fingerprint", _fingerprint(self))

    def thinned(self, step: int) -> ImageSet:
        """Every `step`-th photo of each split, for quick contests. ValueError below 1."""
        if step < 1:
            raise ValueError(f"every {step}-th photo; allowed: 1 or more")
        fit, search, test = (self[split].subset(range(0, len(self[split]), step)) for split in SPLITS)
        return replace(self, fit=fit, search=search, test=test)

    def __getitem__(self, split: Split) -> Photos:
        photos: Photos = getattr(self, split)
        return photos

    @classmethod
    def open(
        cls,
        source: str | os.PathLike[str] | None = None,
        resize: int | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
        memory: int = MEMORY,
        classes: str | os.PathLike[str] | None = None,
    ) -> ImageSet:
        """Photos in any layout of `qtable.photos.readers`, or None: the embedded ones.

        A folder of class folders or of photos without labels; a list, CSV or JSON lines, or a folder that holds one
        (`labels.csv`, `metadata.csv`, `metadata.jsonl`); Parquet files; WebDataset shards. Labels are class indices
        where all are whole numbers; names are numbered from 0 on in alphabetical order.

        Any of these may be an address in remote storage (`s3://bucket/folder`, see `qtable.storage`), and lists may
        name photos by addresses.

        resize: scale each photo so that its shorter side has this many pixels. limit: read at most this many files,
        the first by a hash of their names. memory: bytes of decoded pixels that are kept; the other photos are opened
        anew whenever they are looked at. classes: a file that numbers the classes (`ClassList.open`). Every file is
        opened once here: unreadable ones are skipped and listed. DataError if what is left cannot be used; StorageError
        if remote storage cannot be read.
        """
        if source is None:
            if resize is not None or limit is not None:
                raise DataError("the embedded photos have their own size and number; --resize and --limit need --data")
            if classes is not None:
                raise DataError("the embedded photos have their own classes; --classes needs --data")
            return cls.embedded()
        if limit is not None and limit < 1:
            raise DataError(f"--limit {limit}: at least 1 photo is needed")
        _check(resize, memory)
        listing = read_listing(where(source), None if classes is None else ClassList.open(os.fspath(classes)))
        return _opened(str(source), listing, resize, limit, progress, Cache(memory))

    @classmethod
    def of(
        cls,
        photos: Iterable[Any] | Indexed,
        annotations: Iterable[Any] | None = None,
        classes: Sequence[str] = (),
        resize: int | None = None,
        memory: int = MEMORY,
        source: str = "photos from Python",
    ) -> ImageSet:
        """Photos that a program has: any sequence (a `torch.utils.data.Dataset`, too) of images or of pairs (image,
        annotation), or an iterable of those, which is kept as it is.

        An image is uint8 [h, w, 3], grey [h, w], a uint8 tensor [3, h, w] or a Pillow image. annotations: those of
        images that come without, one each. The splits follow from the pixels. A sequence is asked for its items again
        whenever their pixels are not kept (`memory`), and must give the same ones. DataError, naming the photo, for
        other images: floats above all, which were scaled or normalized for a network that is to see JPEG's pixels.
        """
        _check(resize, memory)
        cache, splits = Cache(memory), _no_photos()
        for file, data, annotation in given(photos, annotations):
            try:
                image = open_photo(data, resize)[0]
            except ValueError as error:
                raise DataError(f"{file.name}: {error}") from None
            digest = hashlib.sha256(data).digest()
            split = split_of(digest)
            cache.put(split, digest, image, makes_way=False)
            splits[split].append((Known(file, digest, (image.shape[0], image.shape[1])), annotation, False))
        return _assembled(source, splits, Listing((), tuple(classes)), resize, cache)

    @classmethod
    def embedded(cls) -> ImageSet:
        """The default task's crops of photographs that ship inside scikit-image; split by place."""
        from qtable.photos import embedded

        def photos(split: Split) -> Photos:
            crops = embedded.crops(split)
            return Photos(tuple(crops.images), np.asarray(crops.labels, np.int64), tuple(crops.names))

        classes = tuple(view.name for view in embedded.views())
        return cls(photos("fit"), photos("search"), photos("test"), source="embedded", classes=classes)


def split_of(digest: bytes) -> Split:
    """The split of a photo from the SHA-256 digest of its file: stable when other photos come or go."""
    u = int.from_bytes(digest[:8], "big") / 2**64
    return "fit" if u < SHARES["fit"] else "search" if u < SHARES["fit"] + SHARES["search"] else "test"


def _check(resize: int | None, memory: int) -> None:
    if resize is not None and resize < 8:
        raise DataError(f"--resize {resize}: the shorter side needs at least 8 pixels")
    if memory < 0:
        raise DataError(f"--memory {memory}: bytes of decoded pixels, 0 or more")


Found = tuple[Known, Any, bool]
"""A photo that opens, its annotation, and whether it was a JPEG."""


def _no_photos() -> dict[Split, list[Found]]:
    return {name: [] for name in SPLITS}


def _opened(
    source: str, listing: Listing, resize: int | None, limit: int | None, progress: Progress | None, cache: Cache
) -> ImageSet:
    """Every file is opened once, so that what cannot be read is known before anything is counted."""

    def look(item: tuple[File, int | None]) -> tuple[Known, bool] | str:
        file, _ = item
        try:
            data = file.read()
            image, is_jpeg = open_photo(data, resize)
        except StorageError:  # nothing is said of the photo by a server that does not answer
            raise
        except PhotoError as error:
            return str(error)
        except Exception as error:  # whatever else a file system or a decoder raises: one skipped photo
            return f"{type(error).__name__}: {error}"
        digest = hashlib.sha256(data).digest()
        cache.put(split_of(digest), digest, image, makes_way=False)
        return Known(file, digest, (image.shape[0], image.shape[1])), is_jpeg

    listed = _limited(listing.photos, limit)
    splits = _no_photos()
    skipped = list(listing.skipped)
    threads = REMOTE_THREADS if any(is_remote(file.name) for file, _ in listed) else os.cpu_count()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")  # what Pillow warns of, it can read nevertheless
        for done, ((file, label), result) in enumerate(zip(listed, pool.map(look, listed), strict=True), start=1):
            if isinstance(result, str):
                skipped.append((file.name, result))
            else:
                splits[split_of(result[0].digest)].append((result[0], label, result[1]))
            if progress is not None:
                progress(done, len(listed))
    found = [one for members in splits.values() for one in members]
    if not found:
        raise DataError(f"{source}: none of {len(listed)} files is a readable photo; {_first(skipped)}")
    if {label for _, label, _ in found} != {None} and len({label for _, label, _ in found}) < 2:
        raise DataError(f"{source}: the {len(found)} readable photos are all of one class; accuracy needs at least two")

    listing = replace(listing, skipped=tuple(skipped))
    return _assembled(source, splits, listing, resize, cache)


def _assembled(
    source: str, splits: dict[Split, list[Found]], listing: Listing, resize: int | None, cache: Cache
) -> ImageSet:
    def photos(split: Split) -> Photos:
        known = tuple(one for one, *_ in splits[split])
        annotations = collected([annotation for _, annotation, _ in splits[split]])
        return Photos(Pixels(known, resize, cache, split), annotations, tuple(one.file.name for one in known))

    found = [one for members in splits.values() for one in members]
    return ImageSet(
        photos("fit"),
        photos("search"),
        photos("test"),
        source=source,
        classes=listing.classes,
        skipped=listing.skipped,
        said=(*listing.said, *_copies(source, found)),
        jpeg_sources=sum(is_jpeg for *_, is_jpeg in found),
    )


def _copies(source: str, found: Sequence[Found]) -> list[str]:
    """A line on photos whose bytes are those of another, and one on those of them that have two class indices."""
    count = Counter(one.digest for one, *_ in found)
    copies = len(found) - len(count)
    if not copies:
        return []
    first = next(one for one, *_ in found if count[one.digest] > 1)
    again = counted(copies, "photo")
    lines = [f"{source}: {again} repeated byte for byte ({first.file.name} is one); each counts by itself"]
    known: dict[bytes, tuple[Known, Any]] = {}
    other: dict[bytes, str] = {}
    for one, label, _ in found:
        before, its = known.setdefault(one.digest, (one, label))
        if isinstance(label, int) and label != its:
            other.setdefault(one.digest, f"{before.file.name} has {its}, {one.file.name} has {label}")
    if other:
        told = next(iter(other.values()))
        lines.append(f"{source}: {counted(len(other), 'photo')} under two class indices: {told}; one of them is wrong")
    return lines


def _limited(listed: Sequence[tuple[File, int | None]], limit: int | None) -> list[tuple[File, int | None]]:
    """At most `limit` of the files, the first by a hash of their last names, in the order in which they are listed."""
    if limit is None:
        return list(listed)
    names = [hashlib.sha256(os.fsencode(Path(file.name).name)).digest() for file, _ in listed]
    return [listed[i] for i in sorted(sorted(range(len(listed)), key=names.__getitem__)[:limit])]


def _first(skipped: Sequence[tuple[str, str]]) -> str:
    return f"the first: {skipped[0][0]} ({skipped[0][1]})" if skipped else "the list is empty"


def _fingerprint(images: ImageSet) -> str:
    total = hashlib.sha256()
    for name in SPLITS:
        photos = images[name]
        known = photos.annotations
        total.update(f"{name} {len(photos)}".encode())
        total.update(known.tobytes() if isinstance(known, np.ndarray) else repr(known).encode())
        for one in digests_of(photos.images):
            total.update(one)
    return total.hexdigest()
