"""Quantized DCT coefficients out of a JPEG file."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import numpy.typing as npt

from qtable.jpeg.codec import decode
from qtable.jpeg.header import read_header
from qtable.jpeg.markers import JpegError

Coefficients = tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.int16]]
"""Quantized DCT coefficients of Y, Cb, Cr: int16 [block rows, block columns, 8, 8], natural order."""


def read_coefficients(data: bytes) -> Coefficients:
    """Quantized coefficients as stored in a YCbCr file, without the dummy blocks that fill up MCUs. JpegError else.

    Files that `decode` refuses are refused: jpeglib prints what is wrong with a file and answers with what it has.
    """
    import jpeglib

    header = read_header(data)
    if len(header.components) != 3:
        raise JpegError("coefficients are read from three-component (YCbCr) files only")
    decode(data)
    with tempfile.NamedTemporaryFile(suffix=".jpg", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
        for segment in header.segments:
            if not (0xE0 <= segment.marker <= 0xEF or segment.marker == 0xFE):  # jpeglib fails on more than 50 of them
                file.write(data[segment.at : segment.at + segment.size + segment.entropy_bytes])
        file.flush()
        try:
            jpeg = jpeglib.read_dct(file.name)
            return jpeg.Y, jpeg.Cb, jpeg.Cr
        except OSError:
            raise JpegError("a JPEG file that jpeglib does not read") from None
