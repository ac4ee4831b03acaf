"""Calibration, search and report splits: three disjoint parts of whatever source a user has."""

from __future__ import annotations

from dse.data.layout import batch_name, graph_shapes, laid_out, samples_name
from dse.data.ranks import given_ranks, source_ranks
from dse.data.sizes import source_sizes
from dse.data.source import ZOO_PREFIX, check_source, code_of, is_code
from dse.data.splits import SPLIT_NAMES, Sizes, deal, load_splits
from dse.data.vocabulary import token_table

__all__ = [
    "SPLIT_NAMES",
    "ZOO_PREFIX",
    "Sizes",
    "batch_name",
    "check_source",
    "code_of",
    "deal",
    "given_ranks",
    "graph_shapes",
    "is_code",
    "laid_out",
    "load_splits",
    "samples_name",
    "source_ranks",
    "source_sizes",
    "token_table",
]
