"""`compress`: a folder or tar of photos, written anew as JPEG with given tables; the originals are only read.

Every output is written under a temporary name and then renamed, and a journal in the target says what is finished:
after a crash the same call continues, and what it leaves is byte for byte what an undisturbed call leaves.
"""

from __future__ import annotations

import copy
import errno
import fcntl
import hashlib
import io
import json
import os
import posixpath
import re
import secrets
import signal
import socket
import stat
import struct
import tarfile
import threading
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, _imaging

from qtable.codec import MAX_SIDE, RGB, Codec, JpegError, read_header
from qtable.data import EXTENSIONS, Progress
from qtable.tables import QTables

MetadataPolicy = Literal["keep", "strip"]
Action = Literal["compressed", "kept", "copied", "shard", "skipped"]
MAX_PIXELS: Final = 178_956_970
"""Pillow refuses larger pictures as decompression bombs."""
PART: Final = ".qtable-part-"
"""How the names of unfinished outputs begin."""
JOURNAL: Final = ".qtable-journal.jsonl"
MANIFEST: Final = "manifest.jsonl"
FORMAT: Final = 1
CHUNK_PHOTOS: Final = 32
CHUNK_BYTES: Final = 1 << 22
"""A worker gets at most this much at once (but at least one file)."""


class CompressError(ValueError):
    """Photos cannot be compressed as asked, or not to the end; the message says why and what to do."""


class Skip(Exception):
    """This file is left out; the message is "reason" or "reason: detail"."""


# ---- metadata -------------------------------------------------------------------------------------------------

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_ICC: Final = b"ICC_PROFILE\0"
_APP0, _APP1, _APP2, _SOS = 0xE0, 0xE1, 0xE2, 0xDA
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn without DHT, JPG, DAC
_SEGMENT_BYTES: Final = 65533
_ICC_CHUNK: Final = 65519
"""ICC.1:2010, annex B.4: profile bytes in one APP2 segment, after the name, a sequence number and the count."""


@dataclass(frozen=True)
class Metadata:
    """What is carried over from a photo: EXIF (a TIFF header and what follows), ICC profile, XMP packet; b"" = none."""

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""


def with_metadata(jpeg: bytes, metadata: Metadata) -> bytes:
    """The JPEG file with APP1 (EXIF, XMP) and APP2 (ICC) segments after its JFIF header. ValueError if too long."""
    payloads = []
    for name, header, body in (("EXIF", _EXIF, metadata.exif), ("XMP", _XMP, metadata.xmp)):
        if len(header) + len(body) > _SEGMENT_BYTES:
            raise ValueError(f"{name} of {len(body)} bytes; a segment holds {_SEGMENT_BYTES - len(header)}")
        if body:
            payloads.append((_APP1, header + body))
    chunks = [metadata.icc[i : i + _ICC_CHUNK] for i in range(0, len(metadata.icc), _ICC_CHUNK)]
    if len(chunks) > 255:
        raise ValueError(f"an ICC profile of {len(metadata.icc)} bytes; a JPEG holds {255 * _ICC_CHUNK}")
    payloads += [(_APP2, _ICC + bytes([i, len(chunks)]) + chunk) for i, chunk in enumerate(chunks, start=1)]
    if not payloads:
        return jpeg
    marker, end, _ = next(_segments(jpeg))
    at = end if marker == _APP0 else 2
    inserted = [struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload for marker, payload in payloads]
    return b"".join([jpeg[:at], *inserted, jpeg[at:]])


def read_metadata(jpeg: bytes) -> Metadata:
    """The inverse of `with_metadata`; a profile of which a chunk is missing counts as none. JpegError if malformed."""
    return _metadata([(marker, payload) for marker, _, payload in _segments(jpeg)])


def _metadata(segments: Sequence[tuple[int, bytes]]) -> Metadata:
    def first(header: bytes) -> bytes:
        bodies = (p.removeprefix(header) for marker, p in segments if marker == _APP1 and p.startswith(header))
        return next(bodies, b"")

    chunks = sorted(p[len(_ICC) :] for marker, p in segments if marker == _APP2 and p.startswith(_ICC))
    whole = [chunk[:2] for chunk in chunks] == [bytes([i, len(chunks)]) for i in range(1, min(len(chunks), 255) + 1)]
    return Metadata(first(_EXIF), b"".join(chunk[2:] for chunk in chunks) if whole else b"", first(_XMP))


def _segments(jpeg: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, where it ends, payload) of the segments up to the first scan's header (ITU-T T.81, B.1.1.4)."""
    at, marker = 2, 0
    try:
        while marker != _SOS:
            if jpeg[at] != 0xFF:
                raise JpegError(f"byte {at} is {jpeg[at]:#04x} where a marker must be")
            while jpeg[at] == 0xFF:
                at += 1
            marker = jpeg[at]
            if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # TEM, RSTn: no payload
                at += 1
                continue
            (length,) = struct.unpack_from(">H", jpeg, at + 1)
            payload = jpeg[at + 3 : at + 1 + length]
            if length < 2 or len(payload) != length - 2:
                raise JpegError(f"segment {marker:#04x} at byte {at} has length {length}, past the end of the file")
            at += 1 + length
            yield marker, at, payload
    except (IndexError, struct.error):
        raise JpegError(f"a truncated JPEG file ({len(jpeg)} bytes)") from None


def orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    tags = Image.Exif()
    try:
        with _pillow():
            tags.load(exif)
            value = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises whatever it likes on malformed EXIF
        return 1
    return value if value in range(1, 9) else 1


def upright(image: RGB, orientation: int) -> RGB:
    """The pixels as they are to be seen (EXIF 2.32, table 6: which side of the picture row 0 and column 0 are)."""
    flipped = image[:, ::-1] if orientation in (2, 4, 5, 7) else image
    turned: RGB = np.rot90(flipped, {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0))
    return np.ascontiguousarray(turned)


# ---- one photo ------------------------------------------------------------------------------------------------

_FORMATS: Final = ("PNG", "WEBP", "BMP", "DIB", "TIFF", "PPM", "GIF")
_MODES: Final = frozenset(["1", "L", "P", "RGB", "RGBX", "YCbCr", "LA", "PA", "RGBA"])
_TIFF_TAGS: Final = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
"""Those of a TIFF's own tags that describe the picture and not the file."""
_pillow_lock = threading.Lock()


@contextmanager
def _pillow() -> Iterator[None]:
    """Pillow without its own limit of pixels and without its warnings about odd files; both are global."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL|qtable\.compress")  # the decoder's stay errors in other threads
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@dataclass(frozen=True)
class Recipe:
    """What happens to each photo: `recipe(file's bytes) -> (file's bytes, action, note)`.

    metadata: "keep" copies EXIF, ICC profile and XMP and leaves the pixels as they are stored; "strip" copies nothing
    and turns the pixels upright. skip_larger: a JPEG that would not become smaller stays as it is (action "kept").
    max_pixels: larger photos are skipped. ValueError for anything else.
    """

    tables: QTables
    codec: Codec
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
        """What must be the same for a run to be continued."""
        return {
            "tables": self.tables.digest()[:16],
            **self.codec.to_dict(),
            "metadata": self.metadata,
            "skip_larger": self.skip_larger,
            "max_pixels": self.max_pixels,
        }

    def __call__(self, data: bytes) -> tuple[bytes, Action, str | None]:
        """Raises Skip for what cannot be kept faithfully as an RGB JPEG with 8 bits a sample."""
        if not data:
            raise Skip("empty file")
        is_jpeg = data.startswith(b"\xff\xd8")
        image, metadata = self._decode_jpeg(data) if is_jpeg else self._decode_other(data)
        note = None
        if self.metadata == "strip":
            image, metadata = upright(image, orientation(metadata.exif)) if metadata.exif else image, Metadata()
        else:
            metadata, note = _fitting(metadata)
        encoded = with_metadata(self.codec.encode(image, self.tables), metadata)
        if self.skip_larger and is_jpeg and len(encoded) >= len(data):
            return data, "kept", None
        return encoded, "compressed", note

    def check_bytes(self, size: int) -> None:
        """Raises Skip for files that are too large to be read, whatever they hold."""
        if size > 8 * self.max_pixels + (1 << 28):
            raise Skip(f"too large: {size} bytes")

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels or max(width, height) > MAX_SIDE:
            raise Skip(f"too large: {width} x {height} pixels")

    def _decode_jpeg(self, data: bytes) -> tuple[RGB, Metadata]:
        try:
            segments = [(marker, payload) for marker, _, payload in _segments(data)]
            for marker, payload in segments:
                if marker in _FRAMES:
                    precision, height, width, components = struct.unpack_from(">BHHB", payload)
                    self._check_size(width, height)
                    if precision != 8:
                        raise Skip("more than 8 bits a sample")
                    if components == 4:
                        raise Skip("colour mode CMYK")
            if any(m == _APP2 and payload.startswith(b"MPF\0") for m, payload in segments) and _is_several(data):
                raise Skip("several pictures")
            return self.codec.decode(data), _metadata(segments)
        except (JpegError, struct.error) as error:
            if b"\xff\xd9" not in data[-64:] and _is_whole(data):
                raise Skip("bytes after the picture's end") from None
            raise Skip(f"unreadable: {error}") from None

    def _decode_other(self, data: bytes) -> tuple[RGB, Metadata]:
        try:
            with _pillow(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if getattr(image, "n_frames", 1) > 1:
                    raise Skip("several pictures")
                self._check_size(*image.size)
                if _is_deep(image):
                    raise Skip("more than 8 bits a sample")
                if image.mode not in _MODES:
                    raise Skip(f"colour mode {image.mode}")
                image.load()
                if image.has_transparency_data:
                    opaque = image.convert("RGBA")
                    if opaque.getchannel("A").getextrema()[0] != 255:
                        raise Skip("transparency")
                    return np.asarray(opaque.convert("RGB")), _pillow_metadata(image)
                return np.asarray(image.convert("RGB")), _pillow_metadata(image)
        except (Skip, MemoryError):
            raise
        except Exception as error:  # Pillow's plugins raise whatever they like on damaged files
            detail = re.sub(r" ?<[^>]* at 0x[0-9a-f]+>", "", str(error))  # the same words in each run
            raise Skip(f"unreadable: {type(error).__name__}: {detail}") from None


def _is_whole(jpeg: bytes) -> bool:
    try:
        read_header(jpeg)
    except JpegError:
        return False
    return True


def _is_several(jpeg: bytes) -> bool:
    """Whether there are other pictures behind the first (MPO: stereo pairs, gain maps)."""
    try:
        with _pillow(), Image.open(io.BytesIO(jpeg), formats=("JPEG", "MPO")) as image:
            return int(getattr(image, "n_frames", 1)) > 1
    except Exception:  # Pillow raises whatever it likes on damaged files
        return False


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether the file has more than 8 bits a sample; Pillow opens such colour files as 8-bit "RGB"."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return bool(max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))) > 8)
    if image.format == "PNG":
        return any(str(tile.args).endswith(";16B") for tile in image.tile)
    return image.format == "PPM" and any(
        isinstance(tile.args, tuple) and int(str(tile.args[1])) > 255  # (mode, maxval)
        for tile in image.tile
    )


def _pillow_metadata(image: ImageFile.ImageFile) -> Metadata:
    """Of a loaded picture that was no JPEG."""
    exif = bytes(image.info.get("exif", b""))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        exif = _tiff_exif(image.getexif())
    elif not exif and "Raw profile type exif" in image.info:  # a PNG's text, as ImageMagick wrote it once
        exif = image.getexif().tobytes()
    xmp = image.info.get("xmp", b"")
    return Metadata(
        exif.removeprefix(_EXIF),
        bytes(image.info.get("icc_profile") or b""),
        xmp.encode() if isinstance(xmp, str) else bytes(xmp),
    )


def _tiff_exif(tags: Image.Exif) -> bytes:
    """What describes the picture and not the file; no orientation, as Pillow turns a TIFF upright when it loads it."""
    kept = Image.Exif()
    for tag in _TIFF_TAGS:
        if tag in tags:
            kept[tag] = tags[tag]
    for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found := tags.get_ifd(folder):
            kept[folder] = found
    return kept.tobytes() if len(kept) else b""


def _fitting(metadata: Metadata) -> tuple[Metadata, str | None]:
    """What a colour JPEG can carry, and what was left out."""
    icc = metadata.icc if metadata.icc[16:20] == b"RGB " and len(metadata.icc) <= 255 * _ICC_CHUNK else b""
    exif = metadata.exif if len(_EXIF + metadata.exif) <= _SEGMENT_BYTES else b""
    xmp = metadata.xmp if len(_XMP + metadata.xmp) <= _SEGMENT_BYTES else b""
    fitting = Metadata(exif, icc, xmp)
    lost = [name.upper() for name, value in vars(metadata).items() if value and not getattr(fitting, name)]
    return fitting, f"without its {', '.join(lost)}: not for a colour JPEG, or too long" if lost else None


# ---- what there is to do --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the source: path relative to `root`, path of the output, what it is, size and time of change.

    reason: why it is left out, where that is known from its name or kind; then it has no target.
    """

    source: str
    target: str | None
    kind: Literal["photo", "shard", "other"]
    size: int
    mtime_ns: int
    reason: str | None = None


def is_photo(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def target_names(names: Sequence[str]) -> list[str]:
    """The outputs' paths: a photo gets the suffix .jpg; JPEG files and all that are no photos keep their names.

    Where a photo's new name is another's, or a folder's, the photo later in `names` gets its whole old name and .jpg.
    """
    keeps = [not is_photo(name) or posixpath.splitext(name)[1].lower() in (".jpg", ".jpeg") for name in names]
    taken = {posixpath.normpath(name) for name, keep in zip(names, keeps, strict=True) if keep}
    for name in names:
        folder = posixpath.dirname(posixpath.normpath(name))
        while folder and folder not in taken:
            taken.add(folder)
            folder = posixpath.dirname(folder)
    targets = []
    for name, keep in zip(names, keeps, strict=True):
        target = name
        if not keep:
            target = posixpath.splitext(name)[0] + ".jpg"
            if posixpath.normpath(target) in taken:
                target = name + ".jpg"
            while posixpath.normpath(target) in taken:
                target += ".jpg"
            taken.add(posixpath.normpath(target))
        targets.append(target)
    return targets


def listing(source: Path) -> tuple[Path, list[Item]]:
    """(root, items in the order of the bytes of their paths) of a folder, or of a tar file by itself.

    Links are not followed. CompressError if there are no photos and no tar files.
    """
    if source.is_dir():
        root, found = source, list(_walk(source))
    elif source.is_file() and source.suffix.lower() == ".tar":
        root, found = source.parent, [(source.name, source.stat(), None)]
    else:
        raise CompressError(f"{source}: no such folder or .tar file")
    found.sort(key=lambda one: os.fsencode(one[0]))
    kept = [name for name, _, reason in found if reason is None]
    targets = dict(zip(kept, target_names(kept), strict=True))
    items = []
    for name, status, reason in found:
        kind: Literal["photo", "shard", "other"] = (
            "photo" if is_photo(name) else "shard" if name.lower().endswith(".tar") else "other"
        )
        size, mtime_ns = (status.st_size, status.st_mtime_ns) if status is not None else (0, 0)
        items.append(Item(name, targets.get(name), kind, size, mtime_ns, reason))
    if all(item.kind == "other" or item.reason is not None for item in items):
        raise CompressError(f"{source}: no photos ({' '.join(sorted(EXTENSIONS))}) and no .tar files")
    return root, items


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result | None, str | None]]:
    """(path relative to root, status, why it is left out) of everything in the tree that is no folder."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            if not folder:
                raise
            yield folder, None, f"unreadable folder: {error.strerror}"
            continue
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # who opens it will say why
                yield name, None, None
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(name)
            elif stat.S_ISLNK(status.st_mode):
                yield name, status, "link"
            elif not stat.S_ISREG(status.st_mode):
                yield name, status, "not a plain file"
            elif name in (MANIFEST, JOURNAL) or name.startswith(PART):
                yield name, status, "name needed by qtable"
            else:
                yield name, status, None


def check_apart(source: Path, target: Path) -> None:
    """CompressError if one is the other or lies inside it, also through links and mounts."""

    def inside(one: Path, other: Path) -> bool:
        return other.exists() and any(place.exists() and place.samefile(other) for place in (one, *one.parents))

    source, target = source.resolve(), target.resolve()
    if inside(target, source) or inside(source, target):
        raise CompressError(f"{target} and {source} must lie apart: the originals are never overwritten")


# ---- one file, on a worker ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the manifest: what became of a file, or (`member` not None) of a member of a tar file.

    Paths are relative; sizes in bytes; digests are hex SHA-256. None where there is nothing.
    """

    source: str
    member: str | None
    target: str | None
    action: Action
    bytes_before: int | None = None
    bytes_after: int | None = None
    sha256_before: str | None = None
    sha256_after: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Entry:
    """What became of a source file: size and time of change when it was read, and rows, the file's own first."""

    size: int
    mtime_ns: int | None
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Job:
    """What every worker must know. Absolute paths; `versions` as the driver's codec has them."""

    root: Path
    target: Path
    recipe: Recipe
    versions: dict[str, str]


def work(job: Job, items: Sequence[tuple[Item, Entry | None]]) -> list[Entry]:
    """Write the outputs of these items; with each comes what an earlier run made of it. CompressError if that fails."""
    here = socket.gethostname()
    if (versions := job.recipe.codec.to_dict()) != job.versions:
        ours, others = (", ".join(v.values()) for v in (versions, job.versions))
        raise CompressError(f"worker on {here}: its codec is {ours}; the driver's {others}")
    if not (job.target / JOURNAL).exists():
        raise CompressError(f"worker on {here}: its {job.target} is not the driver's; they need the same file system")
    entries = []
    with _reused_memory():
        for item, known in items:
            try:
                entries.append(_entry(job, item, known))
            except MemoryError:
                raise CompressError(
                    f"{item.source}: out of memory; take fewer workers or a lower pixel limit"
                ) from None
            except OSError as error:
                raise _write_error(job.target, error) from None
    return entries


@contextmanager
def _reused_memory() -> Iterator[None]:
    """Pillow keeps some memory from photo to photo: page faults would take a fifth of the time."""
    before = _imaging.get_blocks_max()
    _imaging.set_blocks_max(max(before, 4))
    try:
        yield
    finally:
        _imaging.set_blocks_max(before)


def _write_error(target: Path, error: OSError) -> CompressError:
    return CompressError(
        f"{target}: {error.strerror or error}; what was written before is whole, and the same command continues"
    )


def _entry(job: Job, item: Item, known: Entry | None) -> Entry:
    """What becomes of one item. OSError if its output cannot be written."""
    assert item.target is not None
    size, mtime_ns = item.size, item.mtime_ns
    try:
        with _Source.opened(job.root / item.source) as file:
            status = os.fstat(file.fileno())
            size, mtime_ns = status.st_size, status.st_mtime_ns
            make = {"photo": _photo, "shard": _shard, "other": _other}[item.kind]
            rows = make(job, item.source, item.target, file, known)
    except Skip as skip:
        rows = (Row(item.source, None, None, "skipped", size, reason=str(skip)),)
    if rows[0].target is None:
        _discard(job.target / item.target)  # made of what the source was before
    return Entry(size, mtime_ns, rows)


def _discard(path: Path) -> None:
    """Remove a file, if there is one. OSError if it cannot be removed."""
    try:
        path.unlink()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise


class _Source(io.FileIO):
    """A file of the source, opened for reading; its errors are those of this file alone and raise Skip."""

    @classmethod
    def opened(cls, path: Path) -> Self:
        try:
            return cls(path)
        except FileNotFoundError:
            raise Skip("vanished") from None
        except OSError as error:
            raise Skip(f"unreadable: {error.strerror}") from None

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(-1 if size is None else size) or b""
        except OSError as error:
            raise Skip(f"unreadable: {error.strerror}") from None


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._sum.update(data)
        return data

    def digest(self) -> str:
        return self._sum.hexdigest()


def _digest(file: IO[bytes]) -> str:
    hashed = _Hashed(file)
    while hashed.read(1 << 20):
        pass
    return hashed.digest()


def _unchanged(job: Job, known: Entry | None, target: str, digest: str) -> tuple[Row, ...]:
    """The rows of an earlier run, if they are of the same bytes and their output is there as it was written; or ()."""
    if known is None or known.rows[0].sha256_before != digest:
        return ()
    row = known.rows[0]
    if row.target is not None:
        try:
            with open(job.target / row.target, "rb") as file:
                if row.target != target or _digest(file) != row.sha256_after:
                    return ()
        except FileNotFoundError:
            return ()
    return known.rows


@contextmanager
def _part(folder: Path, target: str) -> Iterator[IO[bytes]]:
    """A new file that gets its name `folder/target` when it is finished, and goes if it is not. Skip if none can."""
    part, path = folder / (PART + secrets.token_hex(8)), folder / target
    try:
        with open(part, "x+b") as file:
            yield file
        try:
            part.replace(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise Skip("name too long") from None
        raise


def _converted(job: Job, source: str, member: str | None, target: str, data: bytes) -> tuple[bytes, Row]:
    """A photo's new file and its row; b"" if it is skipped."""
    before = hashlib.sha256(data).hexdigest()
    try:
        made, action, note = job.recipe(data)
    except Skip as skip:
        return b"", Row(source, member, None, "skipped", len(data), None, before, None, str(skip))
    after = hashlib.sha256(made).hexdigest()
    return made, Row(source, member, target, action, len(data), len(made), before, after, note)


def _photo(job: Job, source: str, target: str, file: _Source, known: Entry | None) -> tuple[Row, ...]:
    job.recipe.check_bytes(os.fstat(file.fileno()).st_size)
    data = file.read()
    if known is not None and (rows := _unchanged(job, known, target, hashlib.sha256(data).hexdigest())):
        return rows
    made, row = _converted(job, source, None, target, data)
    if made:
        with _part(job.target, target) as out:
            out.write(made)
    return (row,)


def _other(job: Job, source: str, target: str, file: _Source, known: Entry | None) -> tuple[Row, ...]:
    if known is not None:
        if rows := _unchanged(job, known, target, _digest(file)):
            return rows
        file.seek(0)
    hashed = _Hashed(file)
    with _part(job.target, target) as out:
        while data := hashed.read(1 << 20):
            out.write(data)
        size = out.tell()
    return (Row(source, None, target, "copied", size, size, hashed.digest(), hashed.digest()),)


def _shard(job: Job, source: str, target: str, file: _Source, known: Entry | None) -> tuple[Row, ...]:
    """A tar file anew: each photo in its place under its new name, other members as they are; nothing is unpacked."""
    before = _digest(file)
    if rows := _unchanged(job, known, target, before):
        return rows
    try:
        old = _read_tar(file)
        members = old.getmembers()
        unsafe = [_unsafe(member) for member in members]
        safe = [m.name + "/" * m.isdir() for m, reason in zip(members, unsafe, strict=True) if reason is None]
        names = iter(target_names(safe))
        below = []
        with _part(job.target, target) as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, **_CODING) as new:
                for member, reason in zip(members, unsafe, strict=True):
                    if reason is not None:
                        below.append(Row(source, member.name, None, "skipped", member.size, reason=reason))
                    elif member.isdir():
                        new.addfile(_header(member, next(names).rstrip("/"), 0))
                    else:
                        below.append(_member(job, source, next(names), member, old, new))
            size = out.seek(0, os.SEEK_END)
            out.seek(0)
            after = _digest(out)
    except (tarfile.TarError, ValueError) as error:  # ValueError: numbers and text that no header can hold
        raise Skip(f"damaged tar: {error}") from None
    return (Row(source, None, target, "shard", os.fstat(file.fileno()).st_size, size, before, after), *below)


_CODING: Final[dict[str, Any]] = {"encoding": "utf-8", "errors": "surrogateescape"}
_BLOCK: Final = tarfile.BLOCKSIZE


def _read_tar(file: _Source) -> tarfile.TarFile:
    """An uncompressed tar file that is whole: tarfile itself takes a damaged header for the end. TarError if not."""
    file.seek(0)
    tar = tarfile.open(fileobj=file, mode="r:", **_CODING)  # noqa: SIM115 - it needs no closing, the file does
    tar.getmembers()
    file.seek(tar.offset)
    if any(block := file.read(_BLOCK)):
        raise tarfile.ReadError(f"no member's header at byte {tar.offset}, and not the end ({len(block)} bytes)")
    return tar


def _unsafe(member: tarfile.TarInfo) -> str | None:
    """Why a member is dropped."""
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "unsafe name in a tar file"
    if member.issym() or member.islnk():
        return "link"
    if member.issparse() or not (member.isreg() or member.isdir()):
        return "not a plain file"
    return None


def _header(member: tarfile.TarInfo, name: str, size: int) -> tarfile.TarInfo:
    """The member's header with mode, owner and time as they were."""
    header = copy.copy(member)
    header.name, header.size = name, size
    header.pax_headers = {k: v for k, v in member.pax_headers.items() if k not in ("path", "size", "hdrcharset")}
    return header


def _member(
    job: Job, source: str, target: str, member: tarfile.TarInfo, old: tarfile.TarFile, new: tarfile.TarFile
) -> Row:
    """Put one file of a tar into another."""
    content = old.extractfile(member)
    assert content is not None
    if not is_photo(member.name):
        hashed = _Hashed(content)
        new.addfile(_header(member, target, member.size), hashed)
        return Row(source, member.name, target, "copied", member.size, member.size, hashed.digest(), hashed.digest())
    try:
        job.recipe.check_bytes(member.size)
    except Skip as skip:
        return Row(source, member.name, None, "skipped", member.size, reason=str(skip))
    made, row = _converted(job, source, member.name, target, content.read())
    if made:
        new.addfile(_header(member, target, len(made)), io.BytesIO(made))
    return row


# ---- what is finished -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Of a whole run and those that it continued.

    photos: how many were written, `renamed` of them to .jpg, `kept` as they were; bytes_before, bytes_after: theirs.
    copied: other files. skipped: reason -> number. left: outputs whose source is gone; they stay, in the manifest, too.
    """

    photos: int
    renamed: int
    kept: int
    copied: int
    bytes_before: int
    bytes_after: int
    skipped: dict[str, int]
    left: int
    manifest: Path


class Journal:
    """What became of each source file: since the last whole run in a journal, before that in the manifest.

    The journal's first line holds the options' identity: CompressError, naming the difference, if it is another.
    Each entry is written with one call; a line that a killed run left half-written is dropped.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._folder, self._path = folder, folder / JOURNAL
        self._places: dict[str, tuple[int, int, int]] = {}  # source -> descriptor, offset, length
        self._manifest: int | None = None
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._header = _line({"qtable compress": FORMAT, "identity": identity})
        try:
            self._open(identity)
        except BaseException:
            self.close()
            raise

    def _open(self, identity: dict[str, Any]) -> None:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # forked workers do not inherit it
        except BlockingIOError:
            raise CompressError(
                f"another run is writing {self._folder}; wait for it or choose another target"
            ) from None
        with suppress(FileNotFoundError):
            self._manifest = os.open(self._folder / MANIFEST, os.O_RDONLY)
        if self._manifest is not None:
            for offset, line in _lines(self._manifest):
                source = _parsed(self._folder, line, "source")
                descriptor, start, length = self._places.get(source, (self._manifest, offset, 0))
                self._places[source] = descriptor, start, length + len(line)
        self._end = 0
        for offset, line in _lines(self._descriptor):
            if not offset:
                _check_identity(self._folder, _parsed(self._folder, line, "identity"), identity)
            else:
                source = _parsed(self._folder, line, "rows", 0, "source")
                self._places[source] = self._descriptor, offset, len(line)
            self._end = offset + len(line)
        os.ftruncate(self._descriptor, self._end)
        if not self._end:
            self._append(self._header)

    def find(self, source: str) -> Entry | None:
        """What became of a file in this run or before."""
        if source not in self._places:
            return None
        descriptor, offset, length = self._places[source]
        lines = os.pread(descriptor, length, offset).splitlines()
        if descriptor == self._descriptor:
            data = json.loads(lines[0])
            return Entry(data["size"], data["mtime_ns"], tuple(Row(**row) for row in data["rows"]))
        rows = tuple(Row(**json.loads(line)) for line in lines)
        return Entry(rows[0].bytes_before or 0, None, rows)

    def add(self, entry: Entry) -> None:
        """CompressError if it cannot be written (a full disk)."""
        line = _line({"size": entry.size, "mtime_ns": entry.mtime_ns, "rows": [vars(row) for row in entry.rows]})
        start = self._end
        self._append(line)
        self._places[entry.rows[0].source] = self._descriptor, start, len(line)

    def _append(self, line: bytes) -> None:
        try:
            if os.write(self._descriptor, line) < len(line):
                os.ftruncate(self._descriptor, self._end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _write_error(self._folder, error) from None
        self._end += len(line)

    def finish(self, items: Sequence[Item]) -> Summary:
        """Write the manifest, sorted by path, and empty the journal: its first line stays."""
        present, targets = {item.source for item in items}, {item.target for item in items}
        counts: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        try:
            with _part(self._folder, MANIFEST) as file:
                for source in sorted(self._places, key=os.fsencode):
                    entry = self.find(source)
                    assert entry is not None
                    if source not in present:
                        if entry.rows[0].target is None or entry.rows[0].target in targets:
                            continue
                        counts["left"] += 1
                    for row in sorted(entry.rows, key=lambda row: os.fsencode(row.member or "")):
                        file.write(_line(vars(row)))
                        counts[row.action] += 1
                        if row.action == "skipped":
                            skipped[(row.reason or "").partition(":")[0]] += 1
                        elif row.action in ("compressed", "kept"):
                            counts["renamed"] += row.target != (row.source if row.member is None else row.member)
                            counts["before"] += row.bytes_before or 0
                            counts["after"] += row.bytes_after or 0
            os.ftruncate(self._descriptor, len(self._header))
        except OSError as error:
            raise _write_error(self._folder, error) from None
        return Summary(
            photos=counts["compressed"] + counts["kept"],
            renamed=counts["renamed"],
            kept=counts["kept"],
            copied=counts["copied"],
            bytes_before=counts["before"],
            bytes_after=counts["after"],
            skipped=dict(sorted(skipped.items())),
            left=counts["left"],
            manifest=self._folder / MANIFEST,
        )

    def close(self) -> None:
        for descriptor in (self._descriptor, self._manifest):
            if descriptor is not None:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def _line(data: dict[str, Any]) -> bytes:
    """JSON in ASCII: names that are no UTF-8 are escaped as Python's surrogates."""
    return (_encode(data) + "\n").encode()


def _lines(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the lines that end in a newline."""
    offset = 0
    with open(descriptor, "rb", closefd=False) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield offset, line
            offset += len(line)


def _parsed(folder: Path, line: bytes, *keys: str | int) -> Any:
    """The value at `keys` of a line. CompressError if there is none."""
    try:
        value = json.loads(line)
        for key in keys:
            value = value[key]
    except (ValueError, LookupError, TypeError):
        raise CompressError(f"{folder}: its {JOURNAL} or {MANIFEST} was not written by qtable compress") from None
    return value


def _check_identity(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key in sorted({*old, *new}):
        was, is_now = old.get(key), new.get(key)
        if was != is_now:
            raise CompressError(
                f"{folder} holds another run: its {key} is {was!r}, now {is_now!r}; choose another folder"
            )


# ---- the whole ------------------------------------------------------------------------------------------------


def compress(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    tables: QTables,
    codec: Codec,
    *,
    metadata: MetadataPolicy = "keep",
    skip_larger: bool = False,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = 1,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write the photos of a folder or tar file anew as JPEG, under the same paths in the folder `target`.

    Other files are copied, what cannot be a JPEG faithfully is left out; target/manifest.jsonl has a line for each. The
    same call continues what was interrupted, and brings a target up to date; other options are refused.

    workers: 1 works in this process; more (None: one for each core) in processes of their own; with an `executor`, how
    many it has. progress: called with (done, total) files. CompressError says what cannot be; OSError what cannot be
    read or written at the start.
    """
    recipe = Recipe(tables, codec, metadata, skip_larger, max_pixels)
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise CompressError(f"{workers} workers; allowed: 1 or more")
    root, items = listing(Path(source))
    folder = _target_folder(Path(source), Path(target))
    with ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        journal = stack.enter_context(Journal(folder, recipe.identity()))
        stack.callback(_remove_parts, folder)
        _remove_parts(folder)
        if executor is None and workers > 1:
            executor = stack.enter_context(processes(workers))
        job = Job(root.resolve(), folder.resolve(), recipe, codec.to_dict())
        todo = _todo(items, journal, folder)
        done = len(items) - len(todo)
        chunks = _chunks([item for item in todo if item.reason is None], journal)
        for item in todo:
            if item.reason is not None:
                journal.add(
                    Entry(item.size, item.mtime_ns, (Row(item.source, None, None, "skipped", reason=item.reason),))
                )
                done += 1
        with closing(_spread(job, chunks, executor, 4 * workers)) as finished:
            for entries in finished:
                for entry in entries:
                    _check_seen(job, entry)
                    journal.add(entry)
                done += len(entries)
                if progress is not None:
                    progress(done, len(items))
        return journal.finish(items)


def _target_folder(source: Path, target: Path) -> Path:
    """CompressError where nothing may be written."""
    check_apart(source, target)
    if target.exists() and not target.is_dir():
        raise CompressError(f"{target} exists and is no folder")
    if target.is_dir() and any(target.iterdir()) and not (target / JOURNAL).exists():
        raise CompressError(f"{target} holds other files; choose a new folder")
    return target


def _remove_parts(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.glob(PART + "*"):
            path.unlink()


def _todo(items: Sequence[Item], journal: Journal, folder: Path) -> list[Item]:
    """The items that are not finished. Outputs whose source now has another output are removed."""
    targets, todo = {item.target for item in items}, []
    for item in items:
        known = journal.find(item.source)
        before = known.rows[0].target if known is not None else None
        if before is not None and before not in targets:
            _discard(folder / before)
        if known is None or not _finished(item, known, folder):
            todo.append(item)
    return todo


def _finished(item: Item, known: Entry, folder: Path) -> bool:
    """Whether neither the source nor its output seems to have changed since, by size and time."""
    row = known.rows[0]
    if item.reason is not None:
        return row.reason == item.reason
    if (known.size, known.mtime_ns) != (item.size, item.mtime_ns):
        return False
    if row.target is None:
        return row.sha256_before is not None  # it was read, and is no photo to keep
    try:
        return row.target == item.target and (folder / row.target).stat().st_size == row.bytes_after
    except FileNotFoundError:
        return False


def _chunks(items: Sequence[Item], journal: Journal) -> Iterator[list[tuple[Item, Entry | None]]]:
    """Portions of work of about equal size."""
    chunk, size = list[tuple[Item, Entry | None]](), 0
    for item in items:
        if chunk and (len(chunk) == CHUNK_PHOTOS or size + item.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((item, journal.find(item.source)))
        size += item.size
    if chunk:
        yield chunk


def _spread(
    job: Job, chunks: Iterable[list[tuple[Item, Entry | None]]], executor: Executor | None, at_once: int
) -> Generator[list[Entry], None, None]:
    """What `work` makes of the chunks, in the order in which they are finished; few of them wait at any time."""
    if executor is None:
        yield from (work(job, chunk) for chunk in chunks)
        return
    running: set[Future[list[Entry]]] = set()
    try:
        for chunk in chunks:
            while len(running) >= at_once:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            running.add(executor.submit(work, job, chunk))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except (BrokenExecutor, CancelledError):
        raise CompressError(
            f"a worker died (out of memory?); what is in {job.target} is whole, and the same command continues"
        ) from None
    finally:
        for future in running:
            future.cancel()


def _check_seen(job: Job, entry: Entry) -> None:
    """CompressError if a worker elsewhere does not find what is here."""
    row = entry.rows[0]
    if row.reason == "vanished" and os.path.lexists(job.root / row.source):
        raise CompressError(f"a worker does not see {row.source} in {job.root}; workers need the same file system")


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """`count` processes of this machine that end with this one, whatever ends it, and at once if the body raises.

    They are forked here, before the caller starts threads, and so begin with all modules that are loaded. Ctrl-C is
    for the parent alone.
    """
    reader, writer = os.pipe()
    pool = ProcessPoolExecutor(count, get_context("fork"), _begin, (reader, writer))
    try:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # children inherit it
        try:
            pool.submit(os.getpid).result()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield pool
        pool.shutdown()
    finally:
        os.close(writer)
        pool.shutdown(cancel_futures=True)
        os.close(reader)


def _begin(reader: int, writer: int) -> None:
    """In a new worker: nothing comes through the pipe, but its end, when the parent's writing end is closed."""
    os.close(writer)

    def watch() -> None:
        os.read(reader, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ---- what it would save ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Of `photos` photos with `bytes` bytes in all, some drawn at random: int64 [n] bytes of each before and after.

    skipped: reason -> how many others were drawn that would be left out.
    """

    photos: int
    bytes: int
    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    skipped: dict[str, int]


def sample(
    source: str | os.PathLike[str],
    recipe: Recipe,
    count: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Sample:
    """Try a recipe on at most `count` photos; nothing is written. CompressError for a count below 1."""
    if count < 1:
        raise CompressError(f"a sample of {count} photos; allowed: 1 or more")
    root, items = listing(Path(source))
    photos: list[tuple[str, int, int]] = []  # path, where in the file, bytes
    for item in items:
        if item.reason is None and item.kind == "photo":
            photos.append((item.source, 0, item.size))
        elif item.reason is None and item.kind == "shard":
            with suppress(Skip, tarfile.TarError, ValueError), _Source.opened(root / item.source) as file:
                members = _read_tar(file).getmembers()
                photos += [(item.source, m.offset_data, m.size) for m in members if _is_kept_photo(m)]
    chosen = sorted(rng.choice(len(photos), min(count, len(photos)), replace=False)) if photos else []
    sizes, skipped = list[tuple[int, int]](), Counter[str]()
    for done, i in enumerate(chosen, start=1):
        name, start, size = photos[i]
        try:
            recipe.check_bytes(size)
            with _Source.opened(root / name) as file:
                file.seek(start)
                data = file.read(size)
            sizes.append((len(data), len(recipe(data)[0])))
        except Skip as skip:
            skipped[str(skip).partition(":")[0]] += 1
        if progress is not None:
            progress(done, len(chosen))
    before, after = np.array(sizes, np.int64).reshape(-1, 2).T
    return Sample(len(photos), sum(size for *_, size in photos), before, after, dict(sorted(skipped.items())))


def _is_kept_photo(member: tarfile.TarInfo) -> bool:
    return member.isreg() and is_photo(member.name) and _unsafe(member) is None
