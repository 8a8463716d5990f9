"""Tables as source code: C, V4L2, VA-API."""

from __future__ import annotations

from qtable.encoders.text import _arrays
from qtable.jpeg.tables import QTables


def _c(tables: QTables) -> str:
    n = tables.count
    return (
        f"static const unsigned int qtable_natural[{n}][64] = {_arrays(tables, 'natural', '{}')};\n"
        "#ifdef JPEGLIB_H\n"
        "static void qtable_set(j_compress_ptr cinfo)\n"
        "{\n"
        "    int i;\n"
        f"    for (i = 0; i < {n}; i++)\n"
        "        jpeg_add_quant_table(cinfo, i, qtable_natural[i], 100, TRUE);\n"
        "    for (i = 0; i < cinfo->num_components; i++)\n"
        f"        cinfo->comp_info[i].quant_tbl_no = i < {n} ? i : {n - 1};\n"
        "}\n"
        "#endif\n"
    )


def _v4l2(tables: QTables) -> str:
    return (
        f"static unsigned char qtable_zigzag[{tables.count}][64] = {_arrays(tables, 'zigzag', '{}')};\n"
        "#ifdef V4L2_CID_JPEG_LUMA_QUANTIZATION\n"
        "static void qtable_controls(struct v4l2_ext_control control[2])\n"
        "{\n"
        "    control[0].id = V4L2_CID_JPEG_LUMA_QUANTIZATION;\n"
        "    control[0].ptr = qtable_zigzag[0];\n"
        "    control[1].id = V4L2_CID_JPEG_CHROMA_QUANTIZATION;\n"
        f"    control[1].ptr = qtable_zigzag[{tables.count - 1}];\n"
        "    control[0].size = control[1].size = 64;\n"
        "}\n"
        "#endif\n"
    )


def _vaapi(tables: QTables) -> str:
    return (
        f"static const unsigned char qtable_zigzag[{tables.count}][64] = {_arrays(tables, 'zigzag', '{}')};\n"
        "#ifdef VA_ENC_JPEG_H\n"
        "static void qtable_fill(VAQMatrixBufferJPEG *matrix)\n"
        "{\n"
        "    int i;\n"
        "    matrix->load_lum_quantiser_matrix = matrix->load_chroma_quantiser_matrix = 1;\n"
        "    for (i = 0; i < 64; i++) {\n"
        "        matrix->lum_quantiser_matrix[i] = qtable_zigzag[0][i];\n"
        f"        matrix->chroma_quantiser_matrix[i] = qtable_zigzag[{tables.count - 1}][i];\n"
        "    }\n"
        "}\n"
        "#endif\n"
    )
