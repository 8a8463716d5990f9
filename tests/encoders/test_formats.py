"""Exported tables in the tools that they are for: each is run as its usage says, and its file read back."""

from __future__ import annotations

import array
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from qtable.encoders.formats import FORMATS, detect, to_cjpeg
from qtable.encoders.verify import _programs
from qtable.jpeg.codec import RGB, Subsampling, decode
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import MAX_TABLE_FILE_BYTES, ZIGZAG, QTables

entries = hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(8), st.just(8)), elements=st.integers(1, 255))
C_FLAGS = ("-std=gnu99", "-Wall", "-Wextra", "-Werror")


def three(asymmetric: QTables, count: int) -> QTables:
    """Luma, chroma and a third table, no two alike and none symmetric."""
    return QTables(np.stack([*asymmetric.values, asymmetric.values[0].T])[:count])


def content(form: str, tables: QTables) -> bytes:
    written = FORMATS[form].write(tables)
    return written if isinstance(written, bytes) else written.encode()


# ---- tools, by the commands that the files name ---------------------------------------------------------------


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ImageMagick as `convert` and some `ffmpeg`, where they are to be had."""
    folder = tmp_path_factory.mktemp("bin")
    magick = [path for path, version in _programs("magick", "convert") if "ImageMagick" in version]
    if magick:
        (folder / "convert").symlink_to(magick[0])
    try:
        import imageio_ffmpeg

        (folder / "ffmpeg").symlink_to(shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        pass
    return folder


def run_usage(form: str, tables: QTables, subsampling: Subsampling, photo: RGB, folder: Path, tools: Path) -> bytes:
    """The JPEG that a format's usage, typed into a shell, makes of the photo."""
    program = FORMATS[form].usage.split()[0]
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    where = shutil.which(program, path=path)
    if where is None or (program != "cjpeg" and Path(where).parent != tools):
        pytest.skip(f"{program} ({form}) is not installed")
    file = f"tables{FORMATS[form].suffix}"
    (folder / file).write_bytes(content(form, tables))
    for name in ("IN.ppm", "IN.png"):
        Image.fromarray(photo).save(folder / name)
    command = FORMATS[form].use(tables, file)
    for words in (
        {"4:4:4": "-sample 1x1", "4:2:2": "-sample 2x1", "4:2:0": "-sample 2x2"},
        {"4:4:4": "-factor 4:4:4", "4:2:2": "-factor 4:2:2", "4:2:0": "-factor 4:2:0"},
        {"4:4:4": "yuvj444p", "4:2:2": "yuvj422p", "4:2:0": "yuvj420p"},
    ):
        command = command.replace(words["4:2:0"], words[subsampling])
    subprocess.run(command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, check=True, capture_output=True)
    return (folder / "OUT.jpg").read_bytes()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("form", ["cjpeg", "imagemagick"])
def test_the_command_in_the_file_writes_the_tables(
    form: str, count: int, subsampling: Subsampling, tmp_path: Path, photo: RGB, asymmetric: QTables, tools: Path
) -> None:
    tables = three(asymmetric, count)
    header = read_header(run_usage(form, tables, subsampling, photo, tmp_path, tools))
    assert header.tables == tables
    assert header.subsampling == subsampling


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("count", [1, 2])
def test_ffmpeg_writes_all_but_dc(
    count: int, subsampling: Subsampling, tmp_path: Path, photo: RGB, asymmetric: QTables, tools: Path
) -> None:
    tables = three(asymmetric, count)
    header = read_header(run_usage("ffmpeg", tables, subsampling, photo, tmp_path, tools))
    expected = tables.values.copy()
    expected[:, 0, 0] = 8
    assert header.tables == QTables(expected)
    luma, chroma, _ = ((c.horizontal, c.vertical) for c in header.components)
    ratios = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}
    assert (luma[0] / chroma[0], luma[1] / chroma[1]) == ratios[subsampling]


def ffmpeg_file(options: str, folder: Path, tools: Path) -> QTables:
    """The tables in the file that ffmpeg makes with these options."""
    if not (tools / "ffmpeg").exists():
        pytest.skip("no ffmpeg")
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(folder / "IN.png")
    command = [
        str(tools / "ffmpeg"),
        "-y",
        "-i",
        "IN.png",
        *options.split(),
        "-pix_fmt",
        "yuvj420p",
        "-update",
        "1",
        "OUT.jpg",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return read_header((folder / "OUT.jpg").read_bytes()).tables


MATRICES = tuple(",".join(map(str, row)) for row in (range(33, 97), [*range(90, 29, -1), 400, 254, 8]))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "scale",
    [
        "-q 2", "-qscale 2", "-q:v 3", "-qscale:v 31", "-q:v:0 5", "-q:0 5", "-q:V 7", "-q:v 08", "-q:v 0", "-q:v 1",
        "-q:v 40", "-q:v 40 -qmax 69", "-q:v 2 -qmin 5", "-q:v 8 -qmax 4", "-q:v 1 -qmin 1", "-qmin 2 -qmax 2",
        "-qmin:v 9 -qmax:v 9", "-q:v 4 -qscale 4", "-q:v 4 -q:a 2", "-q:v 4 -c:v mjpeg -b:v 90k",
    ],
)  # fmt: skip
def test_command_lines_are_read_as_the_tables_in_ffmpegs_file(
    scale: str, count: int, tmp_path: Path, tools: Path
) -> None:
    lists = zip(("-intra_matrix", "-chroma_intra_matrix"), MATRICES[:count], strict=False)
    options = " ".join([scale, *(f"{option} {numbers}" for option, numbers in lists)])
    read = FORMATS["ffmpeg"].read(f"ffmpeg -i x {options} \\\n y.jpg".encode()).values.copy()
    if scale == "-q:v 08":  # the identity: what was exported comes back
        assert read[:, 0, 0].tolist() == [33, 90][:count]
        read[:, 0, 0] = 8
    assert QTables(read) == ffmpeg_file(options, tmp_path, tools)


@pytest.mark.parametrize(("scale", "least"), [("-qmin 1 -qmax 1", 8), ("-q:v 2 -qmin 3", 3), ("-q:v 1", 4)])
def test_entries_that_ffmpeg_refuses_are_refused(scale: str, least: int, tmp_path: Path, tools: Path) -> None:
    below, at = (f"{scale} -intra_matrix {','.join(['64'] * 63)},{entry}" for entry in (least - 1, least))
    with pytest.raises(ValueError, match=rf"entry 64 .* is {least - 1}; at q . ffmpeg takes {least} to 65535"):
        FORMATS["ffmpeg"].read(below.encode())
    read = FORMATS["ffmpeg"].read(at.encode())
    assert read.values[0, 7, 7] == 1
    assert read == ffmpeg_file(at, tmp_path, tools)
    with pytest.raises(subprocess.CalledProcessError):
        ffmpeg_file(below, tmp_path, tools)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_pillow_snippet_writes_the_tables(count: int, tmp_path: Path, photo: RGB, asymmetric: QTables) -> None:
    tables = three(asymmetric, count)
    use = FORMATS["pillow"].use(tables).replace("OUT.jpg", str(tmp_path / "OUT.jpg"))
    exec(content("pillow", tables) + use.encode(), {"image": Image.fromarray(photo)})
    assert read_header((tmp_path / "OUT.jpg").read_bytes()).tables == tables


@pytest.mark.parametrize("count", [1, 2, 3])
def test_donors_decode_and_hold_the_tables(count: int, asymmetric: QTables) -> None:
    tables = three(asymmetric, count)
    donor = content("donor", tables)
    header = read_header(donor)
    assert (header.tables, header.mode, header.subsampling) == (tables, "baseline sequential Huffman", "4:4:4")
    assert np.array_equal(decode(donor), np.full((8, 8, 3), 128))
    with Image.open(io.BytesIO(donor)) as image:
        image.load()
        quantization: dict[int, list[int]] = image.quantization  # type: ignore[attr-defined]
    assert [quantization[slot] for slot in range(count)] == tables.values.reshape(-1, 64).tolist()
    assert content("dqt", tables) in donor
    assert content("dqt", tables)[5:69] == bytes(tables.values[0].ravel()[ZIGZAG].tolist())


def hand_over(name: str, folder: Path, source: str, *options: str) -> str:
    """What a C program prints."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    (folder / f"{name}.c").write_text(source)
    subprocess.run(["gcc", *C_FLAGS, f"{name}.c", "-o", name, *options], cwd=folder, check=True, capture_output=True)
    return subprocess.run([f"./{name}"], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("form", ["c", "v4l2", "vaapi"])
def test_c_compilers_read_the_arrays(form: str, tmp_path: Path, asymmetric: QTables) -> None:
    (tmp_path / "tables.h").write_bytes(content(form, asymmetric))
    array = f"qtable_{FORMATS[form].order}"
    source = f"""#include <stdio.h>
#include "tables.h"
int main(void) {{
    for (unsigned i = 0; i < sizeof {array} / sizeof {array}[0][0]; i++)
        printf("%d ", (int){array}[i / 64][i % 64]);
    return 0;
}}
"""
    numbers = np.array(hand_over("show", tmp_path, source).split(), dtype=int).reshape(-1, 64)
    assert (QTables.from_zigzag(numbers) if form != "c" else QTables(numbers.reshape(-1, 8, 8))) == asymmetric


@pytest.mark.parametrize("count", [1, 2, 3])
def test_libjpeg_writes_the_exported_c_tables(count: int, tmp_path: Path, photo: RGB, asymmetric: QTables) -> None:
    if not Path("/usr/include/jpeglib.h").exists():
        pytest.skip("no libjpeg headers (Debian: libjpeg-dev)")
    tables = three(asymmetric, count)
    (tmp_path / "tables.h").write_bytes(content("c", tables))
    (tmp_path / "photo").write_bytes(photo.tobytes())
    height, width = photo.shape[:2]
    source = f"""#include <stdio.h>
#include <stdlib.h>
#include <jpeglib.h>
#include "tables.h"
int main(void) {{
    static unsigned char pixels[{height} * {width} * 3];
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr error;
    FILE *in = fopen("photo", "rb");
    if (fread(pixels, 1, sizeof pixels, in) != sizeof pixels) return 1;
    for (int v = 1; v <= 2; v++) for (int h = v; h <= 2; h++) {{
        char name[] = {{'0' + h, 'x', '0' + v, 0}};
        FILE *out = fopen(name, "wb");
        cinfo.err = jpeg_std_error(&error);
        jpeg_create_compress(&cinfo);
        jpeg_stdio_dest(&cinfo, out);
        cinfo.image_width = {width}; cinfo.image_height = {height};
        cinfo.input_components = 3; cinfo.in_color_space = JCS_RGB;
        jpeg_set_defaults(&cinfo);
        qtable_set(&cinfo);
        cinfo.comp_info[0].h_samp_factor = h; cinfo.comp_info[0].v_samp_factor = v;
        jpeg_start_compress(&cinfo, TRUE);
        while (cinfo.next_scanline < cinfo.image_height) {{
            JSAMPROW row = pixels + cinfo.next_scanline * {width} * 3;
            jpeg_write_scanlines(&cinfo, &row, 1);
        }}
        jpeg_finish_compress(&cinfo);
        jpeg_destroy_compress(&cinfo);
        fclose(out);
    }}
    return 0;
}}
"""
    hand_over("encode", tmp_path, source, "-ljpeg")
    for factors, subsampling in (("1x1", "4:4:4"), ("2x1", "4:2:2"), ("2x2", "4:2:0")):
        header = read_header((tmp_path / factors).read_bytes())
        assert (header.tables, header.subsampling) == (tables, subsampling)


@pytest.mark.parametrize("count", [1, 2])
def test_v4l2_controls_point_to_the_tables(count: int, tmp_path: Path, asymmetric: QTables) -> None:
    if not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("no Linux headers")
    tables = three(asymmetric, count)
    (tmp_path / "tables.h").write_bytes(content("v4l2", tables))
    source = """#include <stdio.h>
#include <linux/videodev2.h>
#define V4L2_CID_JPEG_LUMA_QUANTIZATION 7
#define V4L2_CID_JPEG_CHROMA_QUANTIZATION 8
#include "tables.h"
int main(void) {
    struct v4l2_ext_control control[2];
    qtable_controls(control);
    for (int c = 0; c < 2; c++) {
        printf("%d %d ", (int)control[c].id, (int)control[c].size);
        for (int i = 0; i < 64; i++) printf("%d ", ((unsigned char *)control[c].ptr)[i]);
    }
    return 0;
}
"""
    numbers = np.array(hand_over("controls", tmp_path, source).split(), dtype=int).reshape(2, 66)
    assert numbers[:, :2].tolist() == [[7, 64], [8, 64]]
    assert np.array_equal(QTables.from_zigzag(numbers[:, 2:]).values, tables.components()[:2])


@pytest.mark.parametrize("count", [1, 2])
def test_the_vaapi_buffer_holds_the_tables(count: int, tmp_path: Path, asymmetric: QTables) -> None:
    tables = three(asymmetric, count)
    (tmp_path / "tables.h").write_bytes(content("vaapi", tables))
    source = """#include <stdio.h>
#include <va/va.h>
#include <va/va_enc_jpeg.h>
#include "tables.h"
int main(void) {
    VAQMatrixBufferJPEG matrix;
    qtable_fill(&matrix);
    printf("%d %d ", matrix.load_lum_quantiser_matrix, matrix.load_chroma_quantiser_matrix);
    for (int i = 0; i < 64; i++) printf("%d ", matrix.lum_quantiser_matrix[i]);
    for (int i = 0; i < 64; i++) printf("%d ", matrix.chroma_quantiser_matrix[i]);
    return 0;
}
"""
    if (
        shutil.which("gcc") is None
        or subprocess.run(["gcc", "-E", "-"], input=b"#include <va/va.h>", capture_output=True).returncode
    ):
        pytest.skip("no gcc or no VA-API headers (Debian: libva-dev)")
    numbers = hand_over("fill", tmp_path, source).split()
    assert numbers[:2] == ["1", "1"]
    values = QTables.from_zigzag(np.array(numbers[2:], dtype=int).reshape(2, 64)).values
    assert np.array_equal(values, tables.components()[:2])


def test_rust_reads_the_array(tmp_path: Path, asymmetric: QTables) -> None:
    rustc = shutil.which("rustc")
    if rustc is None or subprocess.run([rustc, "--version"], capture_output=True).returncode:
        pytest.skip("no Rust compiler (rustc)")
    (tmp_path / "tables.rs").write_bytes(content("rust", asymmetric))
    (tmp_path / "show.rs").write_text(
        'include!("tables.rs");\n'
        "fn custom(_: Box<[u16; 64]>) {}\n"  # what jpeg-encoder's QuantizationTableType::Custom takes
        'fn main() { custom(Box::new(QTABLES[0])); for t in &QTABLES { for q in t { print!("{} ", q) } } }\n'
    )
    subprocess.run([rustc, "-D", "warnings", "show.rs"], cwd=tmp_path, check=True, capture_output=True)
    shown = subprocess.run(["./show"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert QTables(np.array(shown.split(), dtype=int).reshape(-1, 8, 8)) == asymmetric


# ---- scaling lists, read back out of the video's parameter sets ------------------------------------------------


def parameter_sets(
    form: str, library: str, tables: QTables, photo: RGB, folder: Path, tools: Path
) -> list[tuple[str, int]]:
    """(syntax element, value) as ffmpeg's trace_headers prints them, of a frame that the library encoded."""
    quiet = [str(tools / "ffmpeg"), "-nostdin", "-hide_banner"]
    if not (tools / "ffmpeg").exists():
        pytest.skip("no ffmpeg")
    if library not in subprocess.run([*quiet, "-encoders"], check=True, capture_output=True, text=True).stdout:
        pytest.skip(f"an ffmpeg without {library}")
    (folder / "tables.txt").write_bytes(content(form, tables))
    Image.fromarray(photo).save(folder / "photo.png")
    option = {"libx264": "cqmfile", "libx265": "scaling-list"}[library]
    parameters = f"qp=28:ipratio=1:keyint=1:no-psy=1:{option}=tables.txt"
    encode = ["-i", "photo.png", "-pix_fmt", "yuv444p", "-c:v", library, f"-{library[3:]}-params", parameters]
    subprocess.run([*quiet, *encode, "video.mkv"], cwd=folder, check=True, capture_output=True)
    trace = ["-loglevel", "trace", "-i", "video.mkv", "-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"]
    words = subprocess.run([*quiet, *trace], cwd=folder, check=True, capture_output=True, text=True).stderr
    return [(name, int(v)) for name, v in re.findall(r"\s([a-z0-9_]+(?:\[\d+\])*)\s+[01]+ = (-?\d+)", words)]


@pytest.mark.parametrize("count", [1, 2])
def test_x264_takes_the_lists_as_they_are_at_qp_28(
    count: int, tmp_path: Path, photo: RGB, asymmetric: QTables, tools: Path
) -> None:
    tables = three(asymmetric, count)
    elements = parameter_sets("x264", "libx264", tables, photo, tmp_path, tools)
    assert dict(elements)["pic_init_qp_minus26"] + dict(elements)["slice_qp_delta"] == 2
    lists: dict[int, list[int]] = {}
    for name, value in elements:
        if name.startswith("pic_scaling_list_present_flag"):
            number = int(name.split("[")[1][:-1])
            lists[number] = [] if value or number < 8 else lists[number - 2]  # H.264, table 7-2: fall-back rule B
        elif name.startswith("delta_scale"):
            lists[number].append(((lists[number] or [8])[-1] + value) % 256)
    zigzag = np.array([lists[number] for number in (6, 8, 10)])  # intra 8 x 8 of Y, Cb, Cr
    assert np.array_equal(QTables.from_zigzag(zigzag).values, tables.components())


def test_x265_takes_three_lists_as_they_are_at_qp_28(
    tmp_path: Path, photo: RGB, asymmetric: QTables, tools: Path
) -> None:
    tables = three(asymmetric, 3)
    found = dict(parameter_sets("x265", "libx265", tables, photo, tmp_path, tools))
    assert found["init_qp_minus26"] + found["slice_qp_delta"] == 2
    diagonal = [(s - x, x) for s in range(15) for x in range(max(0, s - 7), min(s, 7) + 1)]  # H.265, 6.5.3
    for size in (1, 2):  # 8 x 8, 16 x 16
        for plane in range(3):
            entry = 8 + (found[f"scaling_list_dc_coef_minus8[0][{plane}]"] if size == 2 else 0)
            table = np.zeros((8, 8), int)
            for i, place in enumerate(diagonal):
                entry = (entry + found[f"scaling_list_delta_coeff[{size}][{plane}][{i}]"]) % 256
                table[place] = entry
            assert np.array_equal(table, tables.values[plane])


# ---- back in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@given(values=entries)
@example(values=np.full((1, 8, 8), 255, np.uint8))
@example(values=np.full((2, 8, 8), 7, np.uint8))
@example(values=np.full((3, 8, 8), 7, np.uint8))
@settings(max_examples=30)
def test_each_format_reads_back_what_it_wrote(form: str, values: Any) -> None:
    tables = QTables(values[: FORMATS[form].most])
    data = content(form, tables)
    assert FORMATS[form].read(data) == tables
    assert detect(data).name == form


@pytest.mark.parametrize("form", [name for name, entry in FORMATS.items() if entry.most == 2])
def test_formats_without_room_for_three_tables_refuse_them(form: str, asymmetric: QTables) -> None:
    with pytest.raises(ValueError, match=f"^format {form} holds luma and chroma tables; these are 3"):
        FORMATS[form].write(three(asymmetric, 3))


@pytest.mark.parametrize("form", [name for name, entry in FORMATS.items() if entry.comment is not None])
def test_text_says_how_it_is_used_and_what_changes(form: str, asymmetric: QTables) -> None:
    text = content(form, asymmetric).decode()
    heading = f"2 quantization tables (luma, chroma), {FORMATS[form].order} order"
    for line in (heading, FORMATS[form].use(asymmetric), *FORMATS[form].caveats):
        assert line in text


def test_the_search_writes_the_same_cjpeg_file(asymmetric: QTables) -> None:
    assert to_cjpeg(asymmetric).encode() == content("cjpeg", asymmetric)


def printed(tables: QTables) -> dict[str, str]:
    """How Python shows the tables 1..64 and 64..1."""
    flat, rows, zigzag = tables.values.reshape(-1, 64).tolist(), tables.values.tolist(), tables.zigzag().tolist()
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", qtables=flat)
    with Image.open(file) as image:
        pillow = str(image.quantization)  # type: ignore[attr-defined]
    before = {slot: array.array("B", table) for slot, table in enumerate(zigzag)}
    return {
        "Pillow from 8.3 on": pillow,
        "Pillow before 8.3": str(before),
        "the same with a name": f"qtables = {before}  # of IMG_1.jpg",
        "slots in another order": str(dict(reversed(list(enumerate(flat))))),
        "lists": f"\n{flat}\n",
        "lists of rows": f"t = {rows}",
        "tuples": str(tuple(map(tuple, flat))),
        "a NumPy array": str(tables.values),
        "a NumPy array of floats": str(tables.values.astype(float)),
        "a NumPy array in a prompt": repr(tables.values),
        "NumPy arrays by slots": repr(dict(enumerate(tables.values))),
        "NumPy numbers": repr([list(table.ravel()) for table in tables.values]),
        "a tensor": repr(torch.from_numpy(tables.values.copy())),
        "a tensor in the shell": f"torch.{torch.from_numpy(tables.values.astype(np.float32))}",
        "QTables.to_dict": str(tables.to_dict()),
        "QTables.to_dict in zigzag order": str({"values": zigzag, "order": "zigzag"}),
    }


def written_by_others(asymmetric: QTables) -> dict[str, tuple[str, bytes]]:
    """Files as other people and programs write them, each with the tables 1..64 and 64..1."""
    luma, chroma = (" ".join(map(str, t.ravel())) for t in asymmetric.values)
    commas = [t.replace(" ", ",") for t in (luma, chroma)]
    halves = " ".join(str(2 * q - 1) for q in range(1, 65))  # over 2, rounded up
    saved = io.BytesIO()
    np.save(saved, asymmetric.values.astype(">f4"))
    return {
        "cjpeg on one line": ("cjpeg", f"# mine\r\n{luma} {chroma}# end".encode()),
        "byte order mark": ("cjpeg", b"\xef\xbb\xbf" + f"{luma}\n{chroma}".encode()),
        "pillow": ("pillow", f"# x = [1, 2]\nqtables=[[{commas[0]}],\n [{commas[1]}]] # [3]".encode()),
        "imagemagick": (
            "imagemagick",
            (
                "<?xml version='1.0' encoding='ISO-8859-1'?>\n<!DOCTYPE quantization-tables [<!ELEMENT table ANY>]>\n"
                f"<quantization-tables><table slot='1'><levels width='8' height='8'>{commas[1]}</levels></table>"
                f"<table slot='0'><levels divisor='2'>{halves}</levels></table></quantization-tables>"
            ).encode(),
        ),
        "ffmpeg": (
            "ffmpeg",
            f"ffmpeg -i x -qscale:v 8 -chroma_intra_matrix '{commas[1]}' -intra_matrix \"{commas[0]}\" y".encode(),
        ),
        "c": (
            "c",
            f"int a[2][64] = {{{{ {commas[0]} }}, // {{1}}\n /* {{ 2 }} */ {{{commas[1]}}}}};"
            "jpeg_add_quant_table(&c, 0, a[0], 100, 1);".encode(),
        ),
        "json": ("json", json.dumps({"order": "zigzag", "values": asymmetric.zigzag().tolist()}).encode()),
        "numpy": ("numpy", saved.getvalue()),
        "two tables in one DQT": (
            "dqt",
            b"\xff\xdb\0\x84" + b"".join(bytes([i, *t]) for i, t in enumerate(asymmetric.zigzag().tolist())),
        ),
        "16 bits": (
            "dqt",
            b"".join(
                b"\xff\xdb\0\x83" + bytes([16 + slot]) + table.astype(">u2").tobytes()
                for slot, table in enumerate(asymmetric.zigzag())
            ),
        ),
        **{name: ("pillow", text.encode()) for name, text in printed(asymmetric).items()},
        "x264": (
            "x264",
            f"INTRA8X8_CHROMAV={commas[1]}\nINTRA8X8_CHROMAU =\n{commas[1]}\nINTRA8X8_LUMA =\n{luma}".encode(),
        ),
    }  # fmt: skip


def test_files_of_others_are_read(asymmetric: QTables) -> None:
    for name, (form, data) in written_by_others(asymmetric).items():
        assert detect(data).name == form, name
        assert FORMATS[form].read(data) == asymmetric, name


@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        ("cjpeg", b"1 " * 63, "63 table entries"),
        ("cjpeg", b"1 " * 256, "256 table entries"),
        ("cjpeg", b"1 " * 63 + b"256", r"entry \[0,7,7\] = 256"),
        ("cjpeg", b"1 " * 63 + b"0", r"entry \[0,7,7\] = 0"),
        ("cjpeg", b"1 " * 63 + b"9" * 5000, "'99999999999999999999' is not a whole number"),
        ("cjpeg", b"1 " * 63 + "¹".encode(), "is not a whole number"),
        ("cjpeg", b"1 " * 63 + b"-1", "'-1' is not a whole number"),
        ("cjpeg", b"\xff\xfe1", "not UTF-8 text"),
        ("cjpeg", b" " * (MAX_TABLE_FILE_BYTES + 1), "a table file has at most 1048576"),
        ("json", b'{"values": [[[1e999]]]}', "shape"),
        ("json", b"[" * 100_000, "nested too deeply"),
        ("json", b'{"values": ' + b"[" * 500 + b"]" * 500 + b"}", "quantization tables"),
        ("json", b'{"values": [' + b"9" * 5000 + b"]}", "limit"),
        ("json", b'{"values": [' + b"9" * 400 + b"]}", "quantization tables"),
        ("imagemagick", b"<a>" * 100_000, "not XML"),
        ("imagemagick", b"<!DOCTYPE x [<!ENTITY a 'b'>]><quantization-tables/>", "entities are not read"),
        ("imagemagick", b"<quantization-tables/>", "0 table entries"),
        ("imagemagick", b"<x><table slot='0'><levels divisor='0'>1</levels></table></x>", "divisor of slot '0'"),
        ("imagemagick", b"<x><table slot='1'><levels>1</levels></table></x>", "other slots"),
        ("imagemagick", b"<x><table slot='0'/></x>", "no <levels>"),
        ("imagemagick", b"<x><table slot='0'><levels>1</levels></table></x>", "without 64 levels"),
        ("ffmpeg", b"-q:v 8 -intra_matrix 1", "-intra_matrix has 1 table entries, not 64"),
        ("ffmpeg", b"-q:v 8 -intra_matrix", "no -intra_matrix"),
        ("ffmpeg", f"-intra_matrix {MATRICES[0]}".encode(), "no -q:v, so that ffmpeg chooses q itself"),
        ("ffmpeg", f"-q:a 8 -intra_matrix {MATRICES[0]}".encode(), "no -q:v, so that ffmpeg chooses q itself"),
        ("ffmpeg", f"-qmax 8 -intra_matrix {MATRICES[0]}".encode(), "no -q:v, so that ffmpeg chooses q itself"),
        ("ffmpeg", f"-global_quality 8 -intra_matrix {MATRICES[0]}".encode(), "-global_quality is not read"),
        ("ffmpeg", f"-q:v 8.5 -intra_matrix {MATRICES[0]}".encode(), "-q:v 8.5 is not a whole number 0..69"),
        ("ffmpeg", f"-q:v 8 -qmin 9 -qmax 8 -intra_matrix {MATRICES[0]}".encode(), "-qmin 9 is above -qmax 8"),
        ("ffmpeg", f"-q:v 8 -q 2 -intra_matrix {MATRICES[0]}".encode(), "-q is there twice, 8 and 2"),
        ("ffmpeg", f"-q:v:1 8 -intra_matrix {MATRICES[0]}".encode(), "-q:v:1: only options of the first video stream"),
        ("ffmpeg", f"-q:v 8 -chroma_intra_matrix {MATRICES[0]}".encode(), "no -intra_matrix, so that luma has"),
        ("ffmpeg", f"-q:v 8 -c:v mpeg2video -intra_matrix {MATRICES[0]}".encode(), "the encoder is 'mpeg2video'"),
        ("ffmpeg", f"-q:v 8 -intra_matrix {MATRICES[0]},1".encode(), "has 65 table entries"),
        ("ffmpeg", f"-q:v 8 -intra_matrix 0{MATRICES[0][2:]}".encode(), "0 is outside ffmpeg's 1..65535"),
        ("pillow", b"{1: [1], 2: [2]}", r"tables in slots \[1, 2\]; allowed: 0, 1, 2"),
        ("pillow", b"{0: [1, 2], 1: [2]}", "lists of unequal lengths; meant are .* as Pillow prints im.quantization"),
        ("pillow", b"[[1, 2]]", r"an array of shape \[1, 2\]; meant are"),
        ("pillow", b"[]", r"an array of shape \[0\]; meant are"),
        ("pillow", b"{0: [1, 2", "not a whole Python value; meant are"),
        ("pillow", b"[" * 500_000, "not a whole Python value; meant are"),
        ("pillow", b"[__import__('os').abort()]", "not a Python value of numbers alone; meant are"),
        ("pillow", f"[{'300, ' * 64}]".encode(), r"entry \[0,0,0\] = 300 is not an integer in baseline"),
        ("pillow", f"[{'0.5, ' * 64}]".encode(), r"entry \[0,0,0\] = 0.5 is not an integer in baseline"),
        ("pillow", f"[{'-1, ' * 64}]".encode(), "not a Python value of numbers alone"),
        ("pillow", f"{{0: array('B', [{'9, ' * 64}]), 1: [{'9, ' * 64}]}}".encode(), "some tables are array"),
        ("pillow", b"{'values': [[1]]", "not a whole Python value; meant are"),
        ("pillow", b"{'values': [[1]]}", "quantization tables have shape"),
        ("c", b"/*" * 400_000, "0 table entries"),
        ("c", b"{1," * 300_000, "0 table entries"),
        ("numpy", b"\x93NUMPY", "not a .npy file"),
        ("numpy", b"PK\x05\x06" + 18 * b"\0", "not a .npy file of one array"),
        ("numpy", b"\x93NUMPY\1\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "not a .npy file"),
        ("dqt", b"\xff\xdb\0\x43\0", "no whole marker segment at byte 0"),
        ("dqt", b"\xff\xdb\0\x43\1" + 64 * b"\1", r"tables in slots \[1\]"),
        ("dqt", 2 * (b"\xff\xdb\0\x43\0" + 64 * b"\1"), "second table in slot 0"),
        ("dqt", b"\xff\xc4\0\2", "marker 0xc4"),
        ("donor", b"\xff\xd8\xff\xda\0\2", "0 table entries"),
        ("donor", b"GIF", "no SOI"),
        ("x264", b"INTRA8X8_LUMA = 1", "no list INTRA8X8_CHROMAU"),
    ],
)  # fmt: skip
def test_what_is_no_table_file_is_refused(form: str, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FORMATS[form].read(data)


# ---- documentation --------------------------------------------------------------------------------------------


def test_the_documentation_has_each_format_with_its_usage() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")
    for form in FORMATS.values():
        assert f"`{form.name}`" in text
        assert f"`{form.usage}`" in text
