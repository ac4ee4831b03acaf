"""All tasks of a file, quantized against full precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dse.errors import DataError
from dse.evaluate.metric import Inputs, Run
from dse.evaluate.tasks.measure import Network, measure
from dse.evaluate.tasks.schema import TaskEntry
from dse.evaluate.tasks.score import TaskResult, compared
from dse.execute.emulate import bound
from dse.execute.program.program import Program
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.text.model import reader_of
