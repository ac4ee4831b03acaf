"""Errors a user can cause.

DseError
├── GraphError       the ONNX file: unreadable, no shapes, cycle, unsupported operator
├── CheckpointError  a Hugging Face folder: missing shards, custom code, unsupported family
├── SpaceError       a space file: unknown key, format, pattern that matches nothing
├── DataError        calibration, search or report data
├── AssignmentError  an assignment that does not fit the model
├── RunError         a run folder: exists, torn, of another version or model
├── StorageError     a study's storage: not reachable, lost, full
├── WriteError       a file that cannot be written
├── InfeasibleError  constraints that no assignment satisfies
├── MethodError      a method of training, or a model or workload that it does not fit
├── StudyError       a published system: unknown, or its file, a claim or options that do not fit
└── ExportError      a recipe that a target cannot express

`hwmodels` has its own tree (`hwmodels.errors`), which roots in `HardwareError`. The command line
prints the message of either and exits with 2.
"""

from __future__ import annotations

from hwmodels.errors import nearest, some

__all__ = [
    "AssignmentError",
    "CheckpointError",
    "DataError",
    "DseError",
    "ExportError",
    "GraphError",
    "InfeasibleError",
    "MethodError",
    "RunError",
    "SpaceError",
    "StorageError",
    "StudyError",
    "WriteError",
    "nearest",
    "some",
]


class DseError(Exception):
    """The input is wrong; the message says where, what was expected, what came, what to do."""


class GraphError(DseError, ValueError):
    """The ONNX file cannot be used."""


class CheckpointError(GraphError):
    """The Hugging Face folder cannot be used."""


class SpaceError(DseError, ValueError):
    """The space file cannot be used."""


class DataError(DseError, ValueError):
    """The data cannot be used."""


class AssignmentError(DseError, ValueError):
    """The assignment does not fit the model."""


class RunError(DseError, ValueError):
    """The run folder cannot be used."""


class StorageError(DseError, OSError):
    """The storage of a study cannot be reached or written."""


class WriteError(DseError, OSError):
    """A file cannot be written."""


class InfeasibleError(DseError, ValueError):
    """No assignment satisfies the constraints."""


class MethodError(DseError, ValueError):
    """A method of training cannot be used, or not with this model."""


class StudyError(DseError, ValueError):
    """A published system, a claim of it or the options of a measure cannot be used."""


class ExportError(DseError, ValueError):
    """The target cannot express the recipe."""
