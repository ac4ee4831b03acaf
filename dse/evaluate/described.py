"""The outputs of a space's model as they are taken, before anything is run: `dse check`."""

from __future__ import annotations

from pathlib import Path

from dse.data import Sizes, load_splits, token_table
from dse.errors import DseError
from dse.evaluate.outputs.classify import classify
from dse.evaluate.reach import without_untouched
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
    shapes = {
        name: None if (kind := graph.types.get(name)) is None else kind.shape
        for name in graph.inputs
    }
    unread = ""
    try:
        split = load_splits(
            data.source, sizes, sequence=data.sequence, inputs=shapes, folder=folder,
            vocabulary=token_table(graph),
        ).search  # fmt: skip
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
