"""Values of a network that lie pixel after pixel on an NPU."""

from __future__ import annotations

import pytest

from hwmodels.devices.load import load_device
from hwmodels.formats import catalog
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.layout import lies_of, linear_values
from hwmodels.work.work import Op, Operand, RegionWork, Work
from tests.hwmodels.conftest import conv, region

U55 = load_device("ethos-u55")
INT8 = catalog.quantizer("int8:static")


def layer(name: str, source: str, target: str) -> RegionWork:
    """A convolution in integers, which the NPU runs."""
    one = region(name, "conv", [conv(name, source, target, (16, 16), 8)])
    return one.quantized({"weight": catalog.quantizer("int8_channel"), "input": INT8})


def plain(detail: str, source: Operand, target: Operand) -> RegionWork:
    one = Op(name=detail, kind="elementwise", detail=detail, operands=(source, target), sizes={})
    return RegionWork(
        name=detail, kind="elementwise", role="elementwise", ops=(one,), reads=(source,),
        writes=(target,),
    )  # fmt: skip


def value(name: str, shape: tuple[int, ...], *, stored: bool = True) -> Operand:
    quantizer = INT8 if stored else None
    return Operand(name="input", value=name, shape=shape, quantizer=quantizer, bits=32)


def found(*regions: RegionWork) -> frozenset[str]:
    work = Work(name="net", regions=regions, outputs=("out",))
    plans = [[[plan_region(one, U55, load_runtime("vela"))]] for one in regions]
    return linear_values(work, plans, 0, U55)


def test_what_the_caller_hands_over_and_takes_is_not_in_bricks() -> None:
    first, middle, last = layer("1", "image", "a"), layer("2", "a", "b"), layer("3", "b", "out")
    linear = found(first, middle, last)
    assert linear == {"image", "out"}
    assert lies_of(first, linear) == (True, False)
    assert lies_of(middle, linear) == (False, False)
    assert lies_of(last, linear) == (False, True)


@pytest.mark.parametrize(("shape", "turned"), [((1, 16, 8, 8), True), ((1, 16, 1, 1), False)])
def test_maps_that_become_rows_are_not_in_bricks(shape: tuple[int, ...], turned: bool) -> None:
    row = value("b", (1, 16 * shape[2] * shape[3]))
    flat = plain("flatten", value("a", shape), row)
    assert ({"a", "b"} <= found(layer("1", "image", "a"), flat, layer("2", "b", "out"))) == turned


def test_what_the_host_writes_is_not_in_bricks() -> None:
    shape = (1, 16, 8, 8)
    floats = plain("sin", value("a", shape, stored=False), value("b", shape, stored=False))
    assert {"a", "b"} <= found(layer("1", "image", "a"), floats, layer("2", "b", "out"))
