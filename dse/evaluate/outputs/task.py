"""The task of a model: what its outputs mean, and the metric that people know it by."""

from __future__ import annotations

from dataclasses import dataclass

from dse.evaluate.outputs.output import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The meaning of the outputs."""

    outputs: tuple[Output, ...] = ()
    """Those that the loss is the weighted mean of."""
    metric: str = ""
    """`bits_per_byte`, `perplexity`, `accuracy`, a user's own, or empty."""
    labelled: str = ""
    """The output that labels speak of."""
    higher_is_better: bool = False
    """Of a user's own metric."""
    notes: tuple[str, ...] = ()
    """Assumptions and omissions, in words."""

    @property
    def distribution(self) -> bool:
        """Whether some output has a distribution, so that answers can flip."""
        return any(output.is_distribution for output in self.outputs)

    @property
    def goal(self) -> str:
        """The direction in which the metric improves."""
        return "maximise" if self.metric == "accuracy" or self.higher_is_better else "minimise"

    @property
    def unit(self) -> str:
        """Unit of losses."""
        return ", averaged with those ".join(dict.fromkeys(one.unit for one in self.outputs))
