"""The outputs of a space's model as they are taken, before anything is run: `dse check`."""

from __future__ import annotations

from pathlib import Path

from dse.data import Sizes
from dse.errors import DseError
from dse.evaluate.outputs.classify import classify
from dse.evaluate.reach import without_untouched
from dse.evaluate.splits import splits_of
from dse.graph.patterns.analysis import Analysis
from dse.space.schema import Data, QualityOf
from dse.zoo.split import Split


def described_outputs(
    analysis: Analysis, data: Data, quality: QualityOf, folder: Path
) -> tuple[str, ...]:
    """A line an output; without labels where the data cannot be read yet, which is said.

    Raises:
        DataError: an output that the graph does not have.
    """
    graph = analysis.graph
    sizes = Sizes(calibration=data.calibration, search=data.search, report=data.report)
    unread = ""
    try:
        split = splits_of(graph, data, folder, sizes=sizes).search
    except DseError as error:
        split = Split(inputs={}, labels=None, kind="images")
        unread = f"the data cannot be read yet: {error}"
    task = without_untouched(classify(graph, split, quality), graph, analysis.sites)
    lines = [str(output) for output in task.outputs]
    open_ = [
        f"{output.name}: its values decide when it is measured"
        for output in task.outputs
        if not output.certain
    ]
    return (*lines, *open_, *task.notes, *([unread] if unread else []))
