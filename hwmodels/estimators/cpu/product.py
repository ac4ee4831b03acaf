"""Matrix products in blocks: tiles of registers, blocks of caches, packing, conversion.

A tile of R x C outputs is summed in registers, so that M counts in rows (the last tile's at least
`least_rows`), N in lanes and K in what an instruction adds up. Blocks of rows that fill a core's
cache read the second operand once each. Operands in formats that are not multiplied are converted
first; so are weights that a library packs in every call.
"""

from __future__ import annotations

import math

from hwmodels.devices.cpu import Instructions
from hwmodels.estimators.cpu.constants import CONVERT, PACK_CYCLES, UNPACK
from hwmodels.estimators.cpu.demand import Demand
from hwmodels.estimators.cpu.family import FEW_ROWS, element_of, family_of
from hwmodels.estimators.cpu.lookup import lookup_macs_per_s, tables_s
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.granules import up
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ConvolutionLoops, ProductLoops

BYTE = 8
FLOATS_ONLY = ("onnxruntime-cpu",)
"""Runtimes without 16-bit floats: where a network has some by default, they hold float32."""
PREPACKING = ("onnxruntime-cpu",)
"""Runtimes that bring constant weights into the layout of their kernels once, when they load."""


def product_demand(kernel: Kernel, processor: Processor) -> Demand:
    """The demand of a product, or of a batch of them.

    Raises:
        WorkError: Elements that nothing multiplies.
    """
    loops = kernel.loops
    assert isinstance(loops, ProductLoops), "kernels check their loops"
    one = processor.instructions(kernel)
    rate = macs_per_s(one, kernel, processor)
    rows = counted_rows(loops.m, one, processor)
    padded = loops.batch * rows * up(loops.n, one.lanes) * up(loops.k, one.depth)
    cold, warm = temperatures(kernel)
    factor = processor.factor("compute", family_of(kernel), element_of(kernel))
    staged, prepared = staging(kernel, processor, loops)
    packed = packed_s(kernel, processor) if loops.m > FEW_ROWS else 0.0
    return Demand(
        core_s=padded / rate * factor + outliers_s(kernel, processor),
        pieces=loops.batch * math.ceil(loops.m / one.tile[0]) * math.ceil(loops.n / one.tile[1]),
        whole_share=whole_share(rows, loops.n, one) / loops.batch,
        cold=cold,
        warm=warm,
        again=kernel.weight_bytes * (_blocks(loops, kernel, processor) - 1),
        staged=staged,
        prepared_s=prepared,
        packed_s=packed * processor.factor("pack", family_of(kernel), element_of(kernel)),
        light_s=kernel.macs / rate / processor.cores,
    )


def whole_share(rows: int, columns: int, one: Instructions) -> float:
    """Share of outputs, tails counted as they cost, that a full tile of registers has."""
    tile = min(one.tile[0], rows) * min(one.tile[1], up(columns, one.lanes))
    return tile / (rows * up(columns, one.lanes))


def macs_per_s(one: Instructions, kernel: Kernel, processor: Processor) -> float:
    """Multiply-accumulates a second and core of a kernel that multiplies, or looks up."""
    if kernel.lookup is not None:
        return lookup_macs_per_s(kernel.lookup, processor)
    return processor.macs_per_s(one) * kernel.efficiency


def counted_rows(rows: int, one: Instructions, processor: Processor) -> int:
    """Rows of tiles of registers; the last one's at least as many as keep its adders busy."""
    high = one.tile[0]
    rest = rows % high
    least = min(processor.constants.least_rows, high)
    return rows - rest + (max(rest, least) if rest else 0)


def temperatures(kernel: Kernel) -> tuple[float, float]:
    """Bytes that come from main memory, and those that may lie in a cache."""
    if kernel.inputs_are_cold:
        return float(kernel.bytes - kernel.write_bytes), float(kernel.write_bytes)
    cold = kernel.weight_bytes if kernel.weight_is_cold else 0
    return float(cold), float(kernel.bytes - cold)


def staging(kernel: Kernel, processor: Processor, loops: ProductLoops) -> tuple[float, float]:
    """Bytes of packed and converted operands, and seconds of one core to make them."""
    bytes_, instructions = 0.0, 0.0
    operands = (
        (kernel.input_format, kernel.input_element, loops.batch * loops.m * loops.k, False),
        (kernel.weight_format, kernel.weight_element, loops.batch * loops.n * loops.k, True),
    )
    for stored, element, count, is_weight in operands:
        assert stored is not None, "kernels that multiply have both formats"
        wide = ENCODINGS[element].bits / BYTE if element in ENCODINGS else 4.0
        constant = is_weight and kernel.weight_is_cold
        floats = processor.runtime in FLOATS_ONLY and stored.element.kind == "float"
        if stored.element.bits != wide * BYTE and kernel.lookup is None and not floats:
            # Weights are widened on their way into registers, activations once.
            instructions += count * (UNPACK if stored.element.bits < BYTE else CONVERT)
            bytes_ += 0.0 if constant else 2 * count * wide
    tables = tables_s(kernel, processor)
    return bytes_, instructions / vector_rate(processor) + tables


def packed_s(kernel: Kernel, processor: Processor) -> float:
    """Seconds of one core to bring a second operand into the layout of the kernel."""
    loops = kernel.loops
    assert isinstance(loops, ProductLoops | ConvolutionLoops), "only products pack"
    if kernel.weight_is_cold and processor.runtime in PREPACKING:
        return 0.0
    product = loops.product
    return product.batch * product.n * product.k * PACK_CYCLES / processor.clock_hz


def vector_rate(processor: Processor) -> float:
    """Vector elements of 32 bits a second and core, an instruction each."""
    return processor.lanes * processor.cpu.vector_issue * processor.clock_hz


def outliers_s(kernel: Kernel, processor: Processor) -> float:
    """Seconds of one core for the weights that are multiplied apart."""
    if not kernel.outliers:
        return 0.0
    rate = vector_rate(processor) * processor.constants.sparse_share
    return kernel.macs * kernel.outliers / rate


def _blocks(loops: ProductLoops, kernel: Kernel, processor: Processor) -> int:
    """Blocks of rows, each of which reads the second operand once."""
    own = [level.holds(processor.cores) for level in processor.levels if level.is_own]
    room = processor.constants.block_share * max(own, default=0.0)
    assert kernel.input_format is not None, "kernels that multiply have both formats"
    depth = min(loops.k, processor.constants.block_depth)
    height = max(room / (depth * kernel.input_format.bits_per_element / BYTE), 1.0)
    return math.ceil(loops.m / height)
