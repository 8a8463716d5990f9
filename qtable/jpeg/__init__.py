"""What a JPEG file is, exactly: tables, codec, headers, coefficients, arithmetic, layer, sizes."""
