"""Divergence as llama.cpp itself computes it, beside the emulator's, of the same GGUF files.

`python -m studies.language_rivals.inside WORK [MIX...]`, after `mix`, with `xllamacpp`: a file
with `dse`'s mix as `dse export` writes it, one with llama.cpp's own types rounded by its library
with an importance matrix, and one in float32 as a check of the way. llama.cpp keeps its cache in
float16 and rounds activations to 8 bits inside: the emulator's figures are without either, and
with the rounding, as `dse export --verify` emulates it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dse.explore.measure.session import Session, prepare
from dse.export.base import Recipe
from dse.export.deliver import deliver
from dse.export.gguf.metadata import write_metadata
from dse.export.gguf.plan import Plan, plan_of
from dse.export.gguf.vocabulary import write_vocabulary
from dse.graph.ir.assignment import Assignment
from dse.numerics import quantize
from dse.space.load import parse_space
from dse.zoo.llama import Llama
from dse.zoo.split import Split, Splits
from hwmodels.formats.catalog import quantizer
from studies.language_rivals import llamacpp, network, score
from studies.language_rivals.dse_scores import splits

RESULTS = score.RESULTS.with_name("inside.csv")
STRUCTURE = 4096
"""Bytes that any structure of parameters fits in; llama.cpp knows its own part of it."""
Floats = NDArray[np.float32]


class _Parameters(ctypes.Structure):
    """Parameters as llama.cpp makes them by default; nothing here reads a field."""

    _fields_ = [("content", ctypes.c_byte * STRUCTURE)]


class _Batch(ctypes.Structure):
    """`llama_batch` of llama.h."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class LlamaCpp:
    """A file in llama.cpp, by its C interface in the extension of `xllamacpp`."""

    def __init__(self, path: Path) -> None:
        import xllamacpp  # noqa: PLC0415

        library: Any = ctypes.CDLL(str(Path(xllamacpp.__file__).parent / "xllamacpp.abi3.so"))
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory"):
            getattr(library, name).restype = ctypes.c_void_p
        library.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(library, name).restype = _Parameters
        library.llama_batch_init.restype = _Batch
        library.llama_backend_init()
        self._library = library
        model = library.llama_model_load_from_file(
            str(path).encode(), library.llama_model_default_params()
        )
        assert model, f"llama.cpp does not read {path}"
        self._context = ctypes.c_void_p(
            library.llama_init_from_model(
                ctypes.c_void_p(model), library.llama_context_default_params()
            )
        )
        library.llama_set_n_threads(self._context, 1, 1)

    def logits(self, tokens: NDArray[np.int64], vocabulary: int) -> Floats:
        """(tokens, vocabulary) of a text alone."""
        library, count = self._library, len(tokens)
        memory = ctypes.c_void_p(library.llama_get_memory(self._context))
        library.llama_memory_clear(memory, ctypes.c_bool(True))
        batch = library.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for place, token in enumerate(tokens.tolist()):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = 1
        code = library.llama_decode(self._context, batch)
        assert code == 0, f"llama_decode: {code}"
        found = library.llama_get_logits(self._context)
        values = np.ctypeslib.as_array(found, shape=(count, vocabulary)).copy()
        library.llama_batch_free(batch)
        return values


def main() -> None:
    """A row for every file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("mixes", nargs="*", default=[llamacpp.MIXES[0]])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    work: Path = asked.work
    full = network.weights_of(work / "relabelled.onnx")
    importance = llamacpp.importance_of(work)
    space = parse_space(SPACE.format(work=work), origin="inside")
    session = prepare(space, origin="inside", folder=work, splits=_renamed(splits(work)))
    for name in asked.mixes:
        types = json.loads((work / "mix" / f"{name}.json").read_text())
        own, rival = work / f"{name}-dse.gguf", work / f"{name}-llama.gguf"
        recipe = _recipe(session, types)
        deliver(recipe, "gguf", own)
        plan = recipe.once(plan_of)
        _write(plan, rival, full, llamacpp.types_of(full, name), importance)
        _row(work, plan, own, f"dse's mix in the bytes of {name}")
        _row(work, plan, rival, f"{name}, importance")
    plain = work / "float32.gguf"
    _write(plan, plain, full, {}, {})
    _row(work, plan, plain, "float32")


SPACE = """
model: {work}/hf
data: {{source: {work}/tokens.npz, calibration: 8, search: 8, report: 8, batch: 4}}
scenario: {{phases: {{call: {{share: 1, dims: {{batch: 1, sequence: 128}}}}}}}}
targets: [{{name: cpu, device: xeon-8480, runtime: llama-cpp}}]
matrices: apart
candidates:
  - {{match: {{kind: attention}}, use: [bf16]}}
  - {{match: {{}}, use: [{{name: q8_0, weight: q8_0}}]}}
objectives: [quality_loss, weight_bytes]
"""


def _renamed(found: Splits) -> Splits:
    """With the input that the folder's graph has."""
    return Splits(**{
        name: replace(one, inputs={"input_ids": one.inputs["tokens"]})
        for name in ("calibration", "search", "report")
        if isinstance(one := getattr(found, name), Split)
    })  # fmt: skip


def _recipe(session: Session, types: Mapping[str, str]) -> Recipe:
    """The mix as an exporter takes it."""
    evaluator, found = session.evaluator, {}
    for variable in session.design.problem.variables:
        for site in variable.every_site:
            if site.role != "weight":
                continue
            module = variable.modules[0] if variable.modules else ""
            key = f"{module}.weight" if module.endswith("_proj") else network.EMBEDDING
            found[site.key] = quantizer(types[key])
    assignment = Assignment.of(found)
    return Recipe(
        name="mix", program=evaluator.program, assignment=assignment,
        bound=evaluator.bound(assignment),
    )  # fmt: skip


def _write(
    plan: Plan, out: Path, full: Mapping[str, Floats], types: Mapping[str, str],
    importance: Mapping[str, Floats],
) -> None:  # fmt: skip
    """A file with the tensors of a plan in other types, rounded by llama.cpp's library."""
    assert plan.network is not None
    assert plan.recipe.checkpoint is not None
    writer = gguf.GGUFWriter(out, plan.network.family.arch, use_temp_file=False)
    write_metadata(writer, plan.network, out.stem)
    write_vocabulary(
        writer, plan.vocabulary, plan.recipe.checkpoint, plan.network.config.vocab_size
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for entry in plan.entries:
        rows = np.ascontiguousarray(network.turned(entry.stored[0], full[entry.stored[0]]))
        if entry.stored[0] in types:
            kind = gguf.GGMLQuantizationType[types[entry.stored[0]].upper()]
            blocks = llamacpp.blocks_of(rows, kind.name, importance.get(entry.stored[0]))
            writer.add_tensor(entry.name, blocks[entry.order(len(rows))], raw_dtype=kind)
        else:
            content = rows if rows.ndim == 1 else rows[entry.order(len(rows))]
            writer.add_tensor(entry.name, np.ascontiguousarray(content))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _weights(plan: Plan, path: Path) -> dict[str, Floats]:
    """A file's values, by the names and in the layout of the study."""
    tensors = {one.name: one for one in gguf.GGUFReader(path).tensors}
    found = {}
    for entry in plan.entries:
        tensor = tensors[entry.name]
        rows = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if rows.ndim > 1:
            rows[entry.order(len(rows))] = rows.copy()
        found[entry.stored[0]] = np.array(network.turned(entry.stored[0], rows))
    return found


def _row(work: Path, plan: Plan, path: Path, name: str) -> None:
    """One file, emulated and in llama.cpp itself."""
    weights, inside = _weights(plan, path), LlamaCpp(path)
    emulated, rounded = score.model_of(weights), score.model_of(weights)
    _round_activations(rounded, plan, path)
    rows = []
    for base, window in zip(score.reference(work), score.windows(work), strict=True):
        ours, with_rounding = score.logits(emulated, window), score.logits(rounded, window)
        theirs = torch.from_numpy(inside.logits(window[:-1], base.shape[-1]))
        there = functional.log_softmax(theirs, dim=-1)
        rows.append([
            _kl(base, ours), _kl(base, with_rounding), _kl(base, there),
            _kl(ours, there), _kl(with_rounding, there),
        ])  # fmt: skip
    table = np.array(rows)
    means, errors = table.mean(0), table.std(0, ddof=1) / len(table) ** 0.5
    apart = table[:, 2] - table[:, 1]
    score.put(RESULTS, {
        "file": name, "bytes": path.stat().st_size,
        "emulated_kl": means[0], "emulated_stderr": errors[0],
        "rounded_kl": means[1], "rounded_stderr": errors[1],
        "inside_kl": means[2], "inside_stderr": errors[2],
        "inside_less_rounded": float(apart.mean()),
        "its_stderr": float(apart.std(ddof=1) / len(apart) ** 0.5),
        "emulated_to_inside": means[3], "rounded_to_inside": means[4],
    }, ("file",))  # fmt: skip
    print(RESULTS.read_text(), flush=True)


def _round_activations(model: Llama, plan: Plan, path: Path) -> None:
    """Every product's input in 8 bits, in blocks of its weight's elements; floats as they are."""
    types = {one.name: one.tensor_type for one in gguf.GGUFReader(path).tensors}
    modules = dict(model.named_modules())
    for entry in plan.entries:
        elements = gguf.GGML_QUANT_SIZES[types[entry.name]][0]
        stored = entry.stored[0]
        name = "lm_head" if stored == network.EMBEDDING else stored.removesuffix(".weight")
        if elements > 1:
            modules[name].register_forward_pre_hook(_rounding(f"int8@g{elements}/fp32"))


def _rounding(name: str) -> Any:
    chosen = quantizer(name)

    def hook(_module: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (quantize(inputs[0], chosen, axes=(-1,)), *inputs[1:])

    return hook


def _kl(base: torch.Tensor, other: torch.Tensor) -> float:
    return float((base.exp() * (base - other)).sum(-1).mean())


if __name__ == "__main__":
    main()
