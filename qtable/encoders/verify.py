"""Real encoders put to the test: tables in, a photo encoded, the tables of the produced file read back and compared.

What qtable exports (`formats.FORMATS`) is what the encoders get.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, __version__

from qtable.encoders.formats import FORMATS, cjpeg_slots
from qtable.jpeg.codec import RGB, Codec
from qtable.jpeg.header import Header, read_header
from qtable.jpeg.markers import JpegError
from qtable.jpeg.modes import SUBSAMPLINGS, Subsampling
from qtable.jpeg.tables import QTables, as_flat_list

TIMEOUT: Final = 60
"""Seconds that an encoder may take for one photo."""


class EncoderError(ValueError):
    """This encoder is not installed, takes no tables, or failed; the message says which."""


@dataclass(frozen=True)
class Encoder:
    """A real encoder. version: what it says of itself.

    write(folder, tables, subsampling): encodes `folder/photo.ppm` to `folder/out.jpg`; `ValueError` if it cannot.
    """

    name: str
    version: str
    write: Callable[[Path, QTables, Subsampling], None]

    def encode(self, image: RGB, tables: QTables, subsampling: Subsampling) -> bytes:
        """A JPEG file of image, uint8 [h, w, 3]. EncoderError if it fails, or takes more than `TIMEOUT`."""
        with tempfile.TemporaryDirectory(prefix="qtable") as name:
            folder = Path(name)
            Image.fromarray(image).save(folder / "photo.ppm")
            try:
                self.write(folder, tables, subsampling)
                return (folder / "out.jpg").read_bytes()
            except (OSError, ValueError) as error:
                raise EncoderError(f"{self.name}: {error}") from None


def _run(folder: Path, command: list[str]) -> None:
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise EncoderError(f"{command[0]} took more than {TIMEOUT} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "no word of why")
        raise EncoderError(f"{command[0]} failed with status {done.returncode}: {last}")


def _programs(*names: str) -> list[tuple[str, str]]:
    """(path, first line of what `-version` says) of every program on PATH that has one of the names."""
    found: list[tuple[str, str]] = []
    for folder in os.get_exec_path():
        for name in names:
            which = shutil.which(name, path=folder)
            path = str(Path(which or "").absolute())  # PATH may have relative folders, and encoders run elsewhere
            if which is not None and path not in [known for known, _ in found]:
                found.append((path, _version(path)))
    return found


def _version(path: str) -> str:
    """Empty if it does not run."""
    try:
        done = subprocess.run([path, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
    return lines[0].strip() if lines else ""


def _write_tables(folder: Path, form: str, tables: QTables) -> str:
    """The name of a file with the tables as qtable exports them."""
    content = FORMATS[form].write(tables)
    name = f"tables{FORMATS[form].suffix}"
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def _cjpeg_encoder(name: str, path: str, version: str) -> Encoder:
    samples: dict[Subsampling, str] = {"4:4:4": "1x1", "4:2:2": "2x1", "4:2:0": "2x2"}

    def write(folder: Path, tables: QTables, subsampling: Subsampling) -> None:
        slots = ",".join(map(str, cjpeg_slots(tables)))
        options = ["-qtables", _write_tables(folder, "cjpeg", tables), "-qslots", slots]
        options += ["-sample", samples[subsampling], "-optimize", "-outfile", "out.jpg"]
        _run(folder, [path, *options, "photo.ppm"])

    return Encoder(name, version, write)


def _jpeglib_encoder(name: str, backend: str) -> Encoder | None:
    """A libjpeg that the wheel jpeglib carries: its decoder reads the photo, its encoder gets the tables."""
    try:
        import jpeglib
    except ImportError:
        return None

    def write(folder: Path, tables: QTables, subsampling: Subsampling) -> None:
        with jpeglib.version(backend):
            photo = jpeglib.from_spatial(np.asarray(Image.open(folder / "photo.ppm")))
            photo.samp_factor = subsampling
            slots = np.minimum(np.arange(3), tables.count - 1)
            photo.write_spatial(str(folder / "out.jpg"), qt=tables.values.astype(np.uint16), quant_tbl_no=slots)

    return Encoder(name, f"{backend} in jpeglib {jpeglib.__version__}", write)


def _find_cjpeg() -> Encoder | None:
    programs = [(path, version) for path, version in _programs("cjpeg") if version and "mozjpeg" not in version]
    return _cjpeg_encoder("cjpeg", *programs[0]) if programs else None


def _find_mozjpeg() -> Encoder | None:
    programs = [(path, version) for path, version in _programs("cjpeg") if "mozjpeg" in version]
    return _cjpeg_encoder("mozjpeg", *programs[0]) if programs else _jpeglib_encoder("mozjpeg", "mozjpeg403")


def _find_magick() -> Encoder | None:
    """The first `magick` or `convert` that is ImageMagick's; other programs bear these names too."""
    programs = [(path, version) for path, version in _programs("magick", "convert") if "ImageMagick" in version]
    if not programs:
        return None
    path, version = programs[0]

    def write(folder: Path, tables: QTables, subsampling: Subsampling) -> None:
        options = ["-quality", "50", "-define", f"jpeg:q-table={_write_tables(folder, 'imagemagick', tables)}"]
        options += ["-define", "jpeg:dct-method=islow", "-sampling-factor", subsampling]
        _run(folder, [path, "photo.ppm", *options, "out.jpg"])

    return Encoder("magick", version.removeprefix("Version: ").split(" https:")[0], write)


def _find_ffmpeg() -> Encoder | None:
    """ffmpeg on PATH, else the one in the wheel imageio-ffmpeg."""
    programs = [(path, version) for path, version in _programs("ffmpeg") if version.startswith("ffmpeg version")]
    if not programs:
        try:
            import imageio_ffmpeg

            carried = imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError):
            return None
        programs = [(carried, _version(carried))]
    path, version = programs[0]
    formats: dict[Subsampling, str] = {"4:4:4": "yuvj444p", "4:2:2": "yuvj422p", "4:2:0": "yuvj420p"}

    def write(folder: Path, tables: QTables, subsampling: Subsampling) -> None:
        options = shlex.split(str(FORMATS["ffmpeg"].write(tables)), comments=True)
        options += ["-pix_fmt", formats[subsampling], "-frames:v", "1", "-update", "1"]
        _run(folder, [path, "-nostdin", "-loglevel", "error", "-i", "photo.ppm", *options, "out.jpg"])

    return Encoder("ffmpeg", version.split(" Copyright")[0], write)


def _find_pillow() -> Encoder:
    def write(folder: Path, tables: QTables, subsampling: Subsampling) -> None:
        with Image.open(folder / "photo.ppm") as photo:
            options = {"subsampling": subsampling, "optimize": True}
            photo.save(folder / "out.jpg", "JPEG", qtables=as_flat_list(tables), **options)

    return Encoder("pillow", f"Pillow {__version__}", write)


ENCODERS: Final[dict[str, Callable[[], Encoder | None]]] = {
    "cjpeg": _find_cjpeg,
    "mozjpeg": _find_mozjpeg,
    "magick": _find_magick,
    "ffmpeg": _find_ffmpeg,
    "pillow": _find_pillow,
    "jpeglib": lambda: _jpeglib_encoder("jpeglib", "turbo210"),
}
"""What finds each encoder on this machine; None if it is not here."""
NO_ROUTE: Final = {
    "turbojpeg": "its API has no call for tables, only a quality",
    "libvips": "it takes the number of one of nine tables (quant_table), not tables",
    "opencv": "it takes qualities alone",
    "simplejpeg": "it takes a quality alone",
    "go": "image/jpeg takes a quality alone",
    "cjpegli": "it takes a distance or quality; use cjpeg linked with jpegli's libjpeg",
    "graphicsmagick": "it ignores jpeg:q-table without a word",
}
"""Encoders that take no tables, and why."""


def find_encoder(name: str) -> Encoder:
    """An encoder by its name in `ENCODERS`. EncoderError if it is unknown, takes no tables or is not installed."""
    if name in NO_ROUTE:
        raise EncoderError(f"encoder {name} takes no tables of your own: {NO_ROUTE[name]}")
    if name not in ENCODERS:
        raise EncoderError(f"encoder {name!r} is unknown; allowed: {', '.join(ENCODERS)}")
    encoder = ENCODERS[name]()
    if encoder is None:
        raise EncoderError(f"encoder {name} is not installed here")
    return encoder


@dataclass(frozen=True)
class Difference:
    """An entry of the file's tables that is not the wanted one. component: 0 Y, 1 Cb, 2 Cr."""

    component: int
    row: int
    column: int
    wanted: int
    got: int


@dataclass(frozen=True)
class Verdict:
    """What came of one photo. subsampling: the file's. bytes: of the file; own_bytes: of the one by `Codec`."""

    encoder: str
    version: str
    subsampling: str
    differences: tuple[Difference, ...]
    bytes: int
    own_bytes: int


def verify(encoder: Encoder, tables: QTables, image: RGB, subsampling: Subsampling = "4:2:0") -> Verdict:
    """Encode image, uint8 [h, w, 3], and compare the tables in the file with `tables`. EncoderError if that fails."""
    data = encoder.encode(image, tables, subsampling)
    try:
        header = read_header(data)
    except JpegError as error:
        raise EncoderError(f"{encoder.name} wrote {error}") from None
    return Verdict(
        encoder=encoder.name,
        version=encoder.version,
        subsampling=_subsampling(header),
        differences=differences(tables, header),
        bytes=len(data),
        own_bytes=len(Codec(subsampling).encode(image, tables)),
    )


def differences(tables: QTables, header: Header) -> tuple[Difference, ...]:
    """Where the tables of a file's components (at most three) differ. EncoderError if a component has none."""
    found: list[Difference] = []
    for i, (use, wanted) in enumerate(zip(header.uses, tables.components(), strict=False)):
        if use is None:
            raise EncoderError(f"component {i} of the file has no table")
        got = header.quantizations[use].values
        found += [
            Difference(i, int(row), int(column), int(wanted[row, column]), int(got[row, column]))
            for row, column in np.argwhere(got != wanted)
        ]
    return tuple(found)


def _subsampling(header: Header) -> str:
    """`Header.subsampling`; the factors are ratios, and some encoders double all (2x2,1x2,1x2 is 4:2:2)."""
    luma, *chroma = ((c.horizontal, c.vertical) for c in header.components)
    if len(chroma) == 2 and chroma[0] == chroma[1]:
        ratios = {(1.0, 1.0): SUBSAMPLINGS[0], (2.0, 1.0): SUBSAMPLINGS[1], (2.0, 2.0): SUBSAMPLINGS[2]}
        return ratios.get((luma[0] / chroma[0][0], luma[1] / chroma[0][1]), header.subsampling)
    return header.subsampling


def sample_photo() -> RGB:
    """The photograph that is encoded where none is named: scikit-image's astronaut, uint8 [512, 512, 3]."""
    import skimage.data

    return np.ascontiguousarray(skimage.data.astronaut())
