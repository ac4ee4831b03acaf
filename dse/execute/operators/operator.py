"""One operator as the executor knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Value = Tensor | list[Tensor] | None
"""A tensor, a sequence, or an absent optional."""

Function = Callable[..., object]
"""A plain torch function of an operator.

Positional parameters are the ONNX inputs in order (None where an optional one is absent);
keyword-only parameters are the attributes in snake case with ONNX's defaults. Three more
keyword-only names are filled in by the compiler where a function asks for them: `output_count`
(outputs that the node names), `input_types` (element type names, None where unknown) and `device`
(where the output belongs). One output is returned as it is, several as a tuple.
"""

Macs = Callable[..., int]
"""Multiply-accumulates from the tuples of inputs and outputs; reads shapes only. Keyword-only
parameters are attributes, as in a `Function`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The versions of an operator and how the executor must treat it."""

    versions: Mapping[int, Function]
    """Function by the first opset version that it implements; the last one not above counts."""
    host: tuple[int, ...] = ()
    """Inputs that the function reads on the host: shapes, axes, sizes."""
    macs: Macs | None = None
    """Set on the operators that contract."""
    generates: bool = False
    """The output is made from a few host values and may be large (`Range`, `Expand`)."""

    def function(self, opset: int) -> Function | None:
        """The function for an opset version; None where the operator is newer."""
        since = [version for version in self.versions if version <= opset]
        return self.versions[max(since)] if since else None


def operator(
    function: Function,
    *,
    host: tuple[int, ...] = (),
    macs: Macs | None = None,
    generates: bool = False,
) -> Operator:
    """An operator whose meaning never changed."""
    return Operator(versions={1: function}, host=host, macs=macs, generates=generates)
