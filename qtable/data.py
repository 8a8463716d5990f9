"""`ImageSet`: photos and labels in three named splits, `fit`, `search` and `test`.

Statistics and training see `fit`, searchers are scored on `search`, and what is reported comes from `test`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from qtable.codec import MAX_SIDE, RGB, check_work

Split = Literal["fit", "search", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
SHARES: Final[dict[Split, float]] = {"fit": 0.3, "search": 0.3, "test": 0.4}
"""The share of the photos that falls, by content hash, into each split."""
EXTENSIONS: Final = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"])
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
"""What a photo file may be, whatever its name says; for others Pillow would start programs (EPS: Ghostscript)."""
MAX_PIXELS: Final = 178_956_970
"""Photos with more are skipped unread: a small file can claim any number. Pillow itself stops here, too."""
_TOO_MANY_PIXELS: Final = f"more than {MAX_PIXELS:,} pixels"
MAX_FILE_BYTES: Final = 1 << 30
"""Larger files are skipped unread: a photo of `MAX_PIXELS` takes this much uncompressed, with 16 bits per channel."""
MAX_LABEL: Final = (1 << 31) - 1
"""No model has more classes."""
Labels = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Called with (done, total) as long work goes on."""


class DataError(ValueError):
    """The photos named by the user cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Photos:
    """The photos of one split: uint8 [h, w, 3] each, any sizes; labels int64 [n] (class indices); names for people."""

    images: tuple[RGB, ...]
    labels: Labels
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> Photos:
        """The photos at `indices`, in that order."""
        at = np.asarray(indices, dtype=np.intp)
        return Photos(tuple(self.images[i] for i in at), self.labels[at], tuple(self.names[i] for i in at))

    def batches(self, most_photos: int = 32, most_pixels: int = 1 << 21) -> list[npt.NDArray[np.intp]]:
        """Indices in batches of photos of equal size; depends on the photos alone, never on threads."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(self.images):
            by_shape.setdefault(image.shape, []).append(i)
        batches = []
        for shape, members in by_shape.items():
            step = max(1, min(most_photos, most_pixels // (shape[0] * shape[1])))
            batches += [np.array(members[i : i + step], dtype=np.intp) for i in range(0, len(members), step)]
        return batches


@dataclass(frozen=True)
class ImageSet:
    """Three disjoint splits of photos, and what was noticed while reading them.

    classes: names of the class indices where known. skipped: (name, reason) of unreadable files.
    jpeg_sources: how many photos were JPEG files already (a second compression behaves differently).
    fingerprint: hex digest of all pixels, labels and splits; equal data, equal fingerprint.
    """

    fit: Photos
    search: Photos
    test: Photos
    source: str
    classes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
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
    ) -> ImageSet:
        """A folder of class folders, a CSV file (`path,label`), a folder that holds `labels.csv`, or None: embedded.

        Labels are class indices where all are whole numbers; names are numbered from 0 on in alphabetical order.

        resize: scale each photo so that its shorter side has this many pixels. limit: read at most this many files,
        the first by a hash of their names. Unreadable files are skipped and listed. DataError if what is left cannot
        be used.
        """
        if source is None:
            if resize is not None or limit is not None:
                raise DataError("the embedded photos have their own size and number; --resize and --limit need --data")
            return cls.embedded()
        path = Path(source)
        if limit is not None and limit < 1:
            raise DataError(f"--limit {limit}: at least 1 photo is needed")
        if resize is not None and resize < 8:
            raise DataError(f"--resize {resize}: the shorter side needs at least 8 pixels")
        if path.is_dir() and (path / "labels.csv").is_file():
            path = path / "labels.csv"
        unreadable: list[tuple[str, str]] = []
        if path.is_dir():
            listed, classes, unreadable = _list_folder(path)
        elif path.is_file():
            listed, classes = _list_csv(path)
        else:
            raise DataError(f"{path}: no such folder or CSV file")
        return _read(str(source), listed, classes, resize, limit, progress, unreadable)

    @classmethod
    def embedded(cls) -> ImageSet:
        """The default task's crops of photographs that ship inside scikit-image; split by place."""
        from qtable import embedded

        def photos(split: Split) -> Photos:
            crops = embedded.crops(split)
            return Photos(tuple(crops.images), np.asarray(crops.labels, np.int64), tuple(crops.names))

        classes = tuple(view.name for view in embedded.views())
        return cls(photos("fit"), photos("search"), photos("test"), source="embedded", classes=classes)


def split_of(digest: bytes) -> Split:
    """The split of a photo from the SHA-256 digest of its file: stable when other photos come or go."""
    u = int.from_bytes(digest[:8], "big") / 2**64
    return "fit" if u < SHARES["fit"] else "search" if u < SHARES["fit"] + SHARES["search"] else "test"


def open_photo(data: bytes, resize: int | None = None) -> tuple[RGB, bool]:
    """Decode any photo file to (uint8 [h, w, 3], whether it was a JPEG), turned upright as its EXIF says.

    Grey, palette, CMYK, 16-bit grey and transparent photos become RGB as Pillow's `convert` makes it. ValueError for
    files that are none of `FORMATS`, for more than `MAX_PIXELS` and for JPEG files that ask for more work than their
    bytes hold; else what Pillow raises for files that it cannot read in full.
    """
    with _opened(data) as opened:
        _check_pixels(opened.size)
        is_jpeg = opened.format in ("JPEG", "MPO")
        if is_jpeg:
            check_work(data)
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I;16") or upright.mode == "I":
            upright = Image.fromarray(
                (np.asarray(upright).astype(np.float64) / 257.0).round().clip(0, 255).astype(np.uint8)
            )
        rgb = upright.convert("RGB")
        size = rgb.size
        if resize is not None and min(size) != resize:
            factor = resize / min(size)
            size = (max(1, round(rgb.width * factor)), max(1, round(rgb.height * factor)))
        _check_pixels(size)
        if max(size) > MAX_SIDE:
            raise ValueError(f"{size[0]} x {size[1]} pixels; a JPEG file has at most {MAX_SIDE} a side")
        return np.array(rgb if size == rgb.size else rgb.resize(size, Image.Resampling.BILINEAR)), is_jpeg


def _opened(data: bytes) -> Image.Image:
    """A photo of which only the header was read. ValueError for other files and for sizes that Pillow refuses."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"not a photo ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise ValueError(_TOO_MANY_PIXELS) from None


def _check_pixels(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(_TOO_MANY_PIXELS)


def read_photo_file(file: Path) -> bytes:
    """The bytes of a regular file, through links. ValueError for anything else, for empty and for huge files."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
        raise ValueError("not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"{status.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES)
    if not data:
        raise ValueError("empty file")
    return data


def _list_folder(root: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...], list[tuple[str, str]]]:
    """(file, class index) of a folder of class folders, the classes' names, and (folder, reason) of unreadable folders.

    Numeric folder names are class indices themselves. Links are followed, but not to class folders: those are read
    under their own names.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    unreadable: list[tuple[str, str]] = []
    known = frozenset(_identity(folder) for folder in (root, *folders))
    files = {folder: sorted(_photo_files(folder, known, unreadable)) for folder in folders}
    folders = [folder for folder in folders if files[folder]]
    if not folders:
        kinds = " ".join(sorted(EXTENSIONS))
        raise DataError(
            f"{root}: no class folders with photos ({kinds}) and no labels.csv; expected {root}/CLASS/PHOTO"
        )
    if len(folders) == 1:
        raise DataError(f"{root}: only one class folder with photos ({folders[0].name}); accuracy needs at least two")
    numeric = all(folder.name.isdecimal() for folder in folders)
    index = {folder: int(folder.name) if numeric else i for i, folder in enumerate(folders)}
    classes = () if numeric else tuple(folder.name for folder in folders)
    return [(file, index[folder]) for folder in folders for file in files[folder]], classes, unreadable


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _photo_files(folder: Path, known: frozenset[tuple[int, int]], unreadable: list[tuple[str, str]]) -> Iterator[Path]:
    """What is named like a photo in `folder` and below it, but not behind links to `known` folders or round a loop.

    unreadable: gets (folder, reason) of folders that cannot be listed.
    """

    def unlisted(error: OSError) -> None:
        unreadable.append((str(error.filename), f"{type(error).__name__}: {error.strerror}"))

    seen = set(known)
    for place, below, names in os.walk(folder, onerror=unlisted, followlinks=True):
        identities = {_identity(Path(place, name)): name for name in sorted(below, reverse=True)}
        below[:] = [name for identity, name in identities.items() if identity not in seen]
        seen.update(identities)
        yield from (Path(place, name) for name in names if Path(name).suffix.lower() in EXTENSIONS)


def _list_csv(path: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    """(file, class index) of a CSV file with columns `path` (relative to the file) and `label` (index or name)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            if not {"path", "label"} <= set(columns):
                raise DataError(f"{path}: its first line must name the columns path,label; it is {columns!r:.200}")
            at = columns.index("path"), columns.index("label")
            rows = [(row[at[0]], row[at[1]]) if max(at) < len(row) else ("", "") for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from None
    for number, (photo, label) in enumerate(rows, start=2):
        if not photo or not label.strip():
            raise DataError(f"{path}: row {number} has no path or no label")
    labels = sorted({label.strip() for _, label in rows})
    if len(labels) < 2:
        raise DataError(f"{path}: {len(labels)} different labels; accuracy needs at least two")
    try:
        values = {label: float(label) for label in labels}
    except ValueError:  # names
        index = {label: i for i, label in enumerate(labels)}
        return [(path.parent / photo, index[label.strip()]) for photo, label in rows], tuple(labels)
    for number, (_, label) in enumerate(rows, start=2):
        if not (values[label.strip()] >= 0 and values[label.strip()] % 1 == 0):
            raise DataError(f"{path}: row {number} has label {label!r:.40}; a class index is a whole number from 0 on")
    return [(path.parent / photo, int(values[label.strip()])) for photo, label in rows], ()


def _read(
    source: str,
    listed: list[tuple[Path, int]],
    classes: tuple[str, ...],
    resize: int | None,
    limit: int | None,
    progress: Progress | None,
    unreadable: Sequence[tuple[str, str]],
) -> ImageSet:
    def read(item: tuple[Path, int]) -> tuple[bytes, RGB, bool] | str:
        try:
            data = read_photo_file(item[0])
            image, is_jpeg = open_photo(data, resize)
        except (
            Exception
        ) as error:  # Pillow's plugins raise whatever they like on damaged files; each is one skipped photo
            return f"{type(error).__name__}: {error}"
        return hashlib.sha256(data).digest(), image, is_jpeg

    if limit is not None:
        order = sorted(range(len(listed)), key=lambda i: hashlib.sha256(os.fsencode(listed[i][0].name)).digest())
        listed = [listed[i] for i in sorted(order[:limit])]
    found: list[tuple[bytes, RGB, int, str, bool]] = []
    skipped = list(unreadable)
    worst = max((label for _, label in listed), default=0)
    if worst > MAX_LABEL:
        raise DataError(f"{source}: class index {worst} is too large; at most {MAX_LABEL:,} is allowed")
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # what Pillow warns of, it can read nevertheless
        for done, ((file, label), result) in enumerate(zip(listed, pool.map(read, listed), strict=True), start=1):
            if isinstance(result, str):
                skipped.append((str(file), result))
            else:
                found.append((result[0], result[1], label, str(file), result[2]))
            if progress is not None:
                progress(done, len(listed))
    if not found:
        raise DataError(f"{source}: none of {len(listed)} files is a readable photo; {_first(skipped)}")
    if len({label for _, _, label, _, _ in found}) < 2:
        raise DataError(f"{source}: the {len(found)} readable photos are all of one class; accuracy needs at least two")
    splits: dict[Split, list[tuple[bytes, RGB, int, str, bool]]] = {name: [] for name in SPLITS}
    for item in found:
        splits[split_of(item[0])].append(item)
    return ImageSet(
        fit=_photos(splits["fit"]),
        search=_photos(splits["search"]),
        test=_photos(splits["test"]),
        source=source,
        classes=classes,
        skipped=tuple(skipped),
        jpeg_sources=sum(is_jpeg for *_, is_jpeg in found),
    )


def _first(skipped: Sequence[tuple[str, str]]) -> str:
    return f"the first: {skipped[0][0]} ({skipped[0][1]})" if skipped else "the list is empty"


def _photos(items: Iterable[tuple[bytes, RGB, int, str, bool]]) -> Photos:
    items = list(items)
    labels = np.array([label for _, _, label, _, _ in items], dtype=np.int64)
    return Photos(tuple(image for _, image, *_ in items), labels, tuple(name for _, _, _, name, _ in items))


def _fingerprint(images: ImageSet) -> str:
    total = hashlib.sha256()
    for name in SPLITS:
        photos = images[name]
        total.update(f"{name} {len(photos)}".encode() + photos.labels.tobytes())
        for image in photos.images:
            total.update(hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest())
    return total.hexdigest()
