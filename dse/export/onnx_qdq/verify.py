"""Checks of a Q/DQ model by other hands' programs: onnx, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx.reference import ReferenceEvaluator

from dse.errors import ExportError, some
from dse.execute.program.feeds import checked
from dse.export.base import Check, Recipe
from dse.export.onnx_qdq.caveats import SHOWN, as_written, below_range
from dse.export.onnx_qdq.difference import (
    as_tensor,
    largest_difference,
    mean_square,
    rounding,
    ties,
)
from dse.export.onnx_qdq.plan import Pair, plan_of
from dse.export.onnx_qdq.replay import Arrays, Replay, Run, replay
from dse.graph.onnx.convert import ONNX_DOMAIN, domain_name
from dse.graph.onnx.order import bodies

FIRST_LINE = 160
GROWN = (
    "each of {sites} activations agrees where it is quantized, but for ties; the few that fall on "
    "the other side of one put others there, which adds up through the network"
)
ANOTHER = 0.01
"""Mean square of a runtime's difference in full precision, over that of the values, from which on
it computes another network: sums in another order make less, 8 bits of a significand 1e-4."""
EVALUATED_OPSET = 21
"""The reference evaluator has no DequantizeLinear of opset 13; it means the same in 21."""


def checks(recipe: Recipe, path: Path) -> tuple[Check, ...]:
    """Structure, weights and outputs of a written model.

    Raises:
        ExportError: it is invalid, or a program computes something else than the emulator.
    """
    return (_structure(path), _weights(recipe, path), *_outputs(recipe, path))


def _structure(path: Path) -> Check:
    checker = f"onnx.checker {onnx.__version__} (full)"
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{checker}: the model is invalid: {_brief(error)}") from error
    return Check(checker=checker, compared="structure")


def _weights(recipe: Recipe, path: Path) -> Check:
    """Every constant as onnx's reference evaluator reads it, against the emulator."""
    model = onnx.load(path)
    by_name = {node.name: node for graph in _graphs(model.graph) for node in graph.node}
    reader = _Reader(model)
    worst, count = 0.0, 0
    for key, quantize in recipe.bound.items():
        constant = recipe.constant(key)
        if constant is None:
            continue
        name, _, operand = key.rpartition("/")
        found = reader.value(by_name[name].input[int(operand[2:])])
        wanted = quantize(constant)
        difference = largest_difference(torch.from_numpy(found.astype(np.float32)), wanted)
        if difference:
            raise ExportError(
                f"onnx's reference evaluator reads {key} with a difference of {difference:.3g}"
            )
        worst, count = max(worst, difference), count + 1
    return Check(
        checker=f"onnx reference evaluator {onnx.__version__}",
        compared=f"{count} constants",
        difference=worst,
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies in it; names hold across them all."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from _graphs(body)


class _Reader:
    """Constants of a graph as the reference evaluator computes them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        opsets = {domain_name(one.domain): one.version for one in model.opset_import}
        opset = max(opsets[ONNX_DOMAIN], EVALUATED_OPSET)
        self._opsets = [onnx.helper.make_opsetid(ONNX_DOMAIN, opset)]
        graphs = list(_graphs(model.graph))
        self._made = {out: node for graph in graphs for node in graph.node for out in node.output}
        self._stored = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}

    def value(self, name: str) -> npt.NDArray[Any]:
        """The tensor at a value that depends on initializers only."""
        if name in self._stored:
            return np.asarray(onnx.numpy_helper.to_array(self._stored[name]))
        node = self._made[name]
        feeds = {one: self.value(one) for one in node.input if one}
        kinds = [
            onnx.helper.make_tensor_value_info(
                one, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape
            )
            for one, x in feeds.items()
        ]
        unknown = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)
        graph = onnx.helper.make_graph([node], "constant", kinds, [unknown])
        model = onnx.helper.make_model(graph, opset_imports=self._opsets)
        return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])


def _outputs(recipe: Recipe, path: Path) -> list[Check]:
    """Results of installed runtimes on samples, against the emulator."""
    if recipe.samples is None:
        return [_unrun("runtimes", "there are no samples to run")]
    typed = checked(recipe.graph, recipe.samples, torch.device("cpu"))
    feeds = {name: value for name, value in typed.items() if isinstance(value, torch.Tensor)}
    if any(tensor.dtype == torch.bfloat16 for tensor in feeds.values()):
        return [_unrun("runtimes", "the inputs are bfloat16, which they take no arrays of")]
    with torch.inference_mode():
        plain = recipe.program.run(feeds).outputs
        wanted = recipe.program.run(feeds, as_written(recipe)).outputs
    emulated = _Emulated(plain=plain, wanted=wanted)
    arrays = {name: tensor.numpy() for name, tensor in feeds.items()}
    found = [
        _run(runtime, recipe, path, arrays, emulated)
        for module, runtime in RUNTIMES.items()
        if importlib.util.find_spec(module) is not None
    ]
    ran = [one for one in found if one.check.difference is not None]
    if ran and not any(one.agrees for one in ran):
        raise ExportError("; ".join(f"{one.check.checker}: {one.check.note}" for one in ran))
    return [*(one.check for one in found), *below_range(recipe, feeds)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Emulated:
    """Outputs by name, in full precision and under the recipe as the file says it."""

    plain: Mapping[str, torch.Tensor]
    wanted: Mapping[str, torch.Tensor]

    def allowed(self, name: str, exact: Arrays | str) -> float:
        """The mean square that a runtime may be off by.

        Its own sums differ in full precision already, more so in 16 bits, where they also put
        more values on the other side of a tie.
        """
        plain, wanted = self.plain[name], self.wanted[name]
        share, least = ties(wanted.dtype), max(1e-12, rounding(wanted.dtype))
        own = 0.0 if isinstance(exact, str) else mean_square(as_tensor(exact[name]), plain)
        return share * mean_square(plain, wanted) + 4 * own + least * mean_square(wanted, 0)

    def another(self, exact: Arrays | str) -> str:
        """The first output that a runtime computes otherwise before anything is quantized."""
        if isinstance(exact, str):
            return ""
        return next(
            (
                name
                for name, plain in self.plain.items()
                if mean_square(as_tensor(exact[name]), plain) > ANOTHER * mean_square(plain, 0)
            ),
            "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The check of what a runtime did with the samples.

    One that agrees is enough: OpenVINO alone computes static 8-bit floats and 16-bit integers of
    activations otherwise, from files that ONNX Runtime and the reference evaluator read alike.
    """

    check: Check
    agrees: bool = True


def _run(
    runtime: Run, recipe: Recipe, path: Path, arrays: Arrays, emulated: _Emulated
) -> _Outcome:
    """One runtime on the samples."""
    checker, outputs = runtime(path, arrays)
    if isinstance(outputs, str):
        return _Outcome(check=_unrun(checker, outputs))
    assert recipe.graph.path is not None, "a program with weights was loaded from a file"
    _, exact = runtime(recipe.graph.path, arrays)
    if name := emulated.another(exact):
        why = f"it computes {name} of the searched model in full precision otherwise already"
        return _Outcome(check=Check(checker=checker, compared="nothing", note=why))
    found = {name: as_tensor(outputs[name]) for name in emulated.wanted}
    off = [
        name
        for name, wanted in emulated.wanted.items()
        if mean_square(found[name], wanted) > emulated.allowed(name, exact)
    ]
    difference = max(
        largest_difference(found[name], wanted) for name, wanted in emulated.wanted.items()
    )
    if not off:
        return _Outcome(check=Check(checker=checker, compared="outputs", difference=difference))
    again = _replayed(runtime, recipe, path, arrays, emulated.plain)
    if again is not None and not again.off:
        note = GROWN.format(sites=again.sites)
        check = Check(checker=checker, compared="outputs", difference=difference, note=note)
        return _Outcome(check=check)
    places = off if again is None else again.off
    note = f"more than ties explain, in {some(places, SHOWN)}"
    check = Check(checker=checker, compared="outputs", difference=difference, note=note)
    return _Outcome(check=check, agrees=False)


def _replayed(
    runtime: Run, recipe: Recipe, path: Path, arrays: Arrays, plain: Mapping[str, torch.Tensor]
) -> Replay | None:
    """A runtime's activations one by one; None where it cannot show them as they were."""
    if runtime is _openvino:
        return None  # it fuses other operators where more values are outputs
    placed = recipe.once(plan_of).placements
    keys = [key for key, one in placed.items() if isinstance(one, Pair)]
    quantizers = as_written(recipe)
    return replay(runtime, path, arrays, recipe, plain=plain, quantizers=quantizers, keys=keys)


def _unrun(checker: str, why: str) -> Check:
    return Check(checker=checker, compared="nothing", note=f"not run: {why}")


def _onnxruntime(path: Path, feeds: Arrays) -> tuple[str, Arrays | str]:
    import onnxruntime as ort  # noqa: PLC0415 (an extra)

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Optimised, it multiplies integers where the file says floats.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    name = f"ONNX Runtime {ort.__version__}"
    try:
        session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        outputs = session.run(None, dict(feeds))
    except Exception as error:  # its own exceptions have no common base
        return name, _brief(error)
    return name, dict(zip((one.name for one in session.get_outputs()), outputs, strict=True))


OPENVINO = """
import json, sys, numpy, openvino
def plain(tensor):
    if tensor.element_type != openvino.Type.bf16:
        return tensor.data
    # It shows them as an array of fp16 that has the bits of bf16.
    return (tensor.data.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
core = openvino.Core()
# Without the second one it quantizes activations that meet 4-bit weights by itself.
settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
model = core.compile_model(core.read_model(sys.argv[1]), "CPU", settings)
with numpy.load(sys.argv[2]) as given:
    request = model.create_infer_request()
    request.infer(dict(zip(json.loads(sys.argv[4]), given.values())))
numpy.savez(sys.argv[3], *(plain(request.get_tensor(output)) for output in model.outputs))
"""
"""In a process of its own: on some integer graphs it ends the process that it runs in. Outputs go
by their order: compiled, it calls them by other names of the same value."""


def _openvino(path: Path, feeds: Arrays) -> tuple[str, Arrays | str]:
    name = f"OpenVINO {version('openvino').partition('-')[0]}"
    with TemporaryDirectory() as folder:
        given, found = Path(folder, "feeds.npz"), Path(folder, "outputs.npz")
        np.savez(given, *feeds.values())  # a name may be one of the function's own, such as `file`
        names = json.dumps(list(feeds))
        command = [sys.executable, "-c", OPENVINO, str(path), str(given), str(found), names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [""]
            return name, f"exit {done.returncode} {last[0]}".strip()[:FIRST_LINE]
        with np.load(found) as outputs:
            written = onnx.load(path, load_external_data=False).graph.output
            return name, {one.name: outputs[f"arr_{at}"] for at, one in enumerate(written)}


RUNTIMES: Mapping[str, Run] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""By the module that must be installed."""


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:FIRST_LINE]
