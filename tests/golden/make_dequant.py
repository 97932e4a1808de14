"""Writes dequant.txt: random blocks of every quantised type and their values as the `gguf` package
gives them, bit for bit. One line per block: TYPE HEX(block) HEX(float32 little-endian values).

    python make_dequant.py      needs gguf, numpy
"""
import pathlib

import gguf
import numpy as np

TYPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"]
SCALES = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208]}
EDGES = [0x3C00, 0x2E66, 0xB1FF, 0x0001, 0x83FF, 0x7BFF, 0x0000, 0x8000]  # f16 bits

rng = np.random.default_rng(1)
with open(pathlib.Path(__file__).parent / "dequant.txt", "w") as out:
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        _, size = gguf.GGML_QUANT_SIZES[kind]
        for i in range(6):
            block = rng.integers(0, 256, size, dtype=np.uint8)
            if name == "MXFP4":
                block[0] = [127, 0, 1, 2, 254, 120][i]
            else:
                for j, at in enumerate(SCALES.get(name, [0])):
                    block[at:at + 2] = np.frombuffer(np.uint16(EDGES[(i + 3 * j) % len(EDGES)]).tobytes(), np.uint8)
            values = gguf.dequantize(block.reshape(1, -1), kind).astype("<f4")
            out.write(f"{name} {block.tobytes().hex()} {values.tobytes().hex()}\n")
