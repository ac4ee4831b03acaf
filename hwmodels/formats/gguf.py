"""The block formats of GGUF (llama.cpp): fitted scales, offsets, scales of scales.

Source: `ggml-common.h` (the blocks) and `ggml-quants.c` (`dequantize_row_*`) of llama.cpp.
"""

from __future__ import annotations

from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.quantizer import Format, Scale

GGML = "llama.cpp, ggml-common.h"
SUPER_GROUP = 256
"""Elements of a super-block, `QK_K`."""


def _block(
    name: str, element: str, group: int, scale: str, *, offset: str = "", above: str = ""
) -> Format:
    return Format(
        name=name,
        element=ENCODINGS[element],
        granularity="group",
        group=group,
        scale=Scale(encoding=ENCODINGS[scale], rule="fitted"),
        offset=ENCODINGS[offset] if offset else None,
        super_group=SUPER_GROUP if above else 0,
        super_scale=ENCODINGS[above] if above else None,
        source=f"{GGML}, block_{name}",
    )


GGUF_FORMATS = (
    _block("q4_0", "int4a", 32, "fp16"),
    _block("q4_1", "uint4", 32, "fp16", offset="fp16"),
    _block("q5_0", "int5a", 32, "fp16"),
    _block("q5_1", "uint5", 32, "fp16", offset="fp16"),
    _block("q8_0", "int8a", 32, "fp16"),
    _block("q2_k", "uint2", 16, "uint4", offset="uint4", above="fp16"),
    _block("q3_k", "int3a", 16, "int6a", above="fp16"),
    _block("q4_k", "uint4", 32, "uint6", offset="uint6", above="fp16"),
    _block("q5_k", "uint5", 32, "uint6", offset="uint6", above="fp16"),
    _block("q6_k", "int6a", 16, "int8a", above="fp16"),
    _block("iq4_nl", "iq4_nl_element", 32, "fp16"),
    _block("iq4_xs", "iq4_nl_element", 32, "int6a", above="fp16"),
    Format(
        name="nvfp4_ggml",
        element=ENCODINGS["e2m1"],
        granularity="group",
        group=16,
        scale=Scale(encoding=ENCODINGS["ue4m3"]),
        source=f"{GGML}, block_nvfp4 (without the scale of the tensor)",
    ),
)
