"""JPEG's coefficients as numbers: exact sizes, whole files, and quantization that weighs error against bits."""
