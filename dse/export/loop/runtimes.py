"""The programs that serve, score and time the models of each exporter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from dse.explore.workload import Workload
from dse.export.loop import steps
from dse.export.loop.script import Section, Setting

TASKS = Setting(name="TASKS", default="wikitext", meaning="tasks of lm-eval, e.g. wikitext,mmlu")
PORT = Setting(name="PORT", default="8000", meaning="the port that models are served at")
TEXT = Setting(
    name="TEXT", default="", meaning="a text file to compare models on, e.g. wiki.test.raw",
    is_path=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model to measure."""

    name: str
    """A digest, or `reference`: what the server calls it, too."""
    path: str
    """Relative to the script, or absolute."""
    options: tuple[str, ...] = ()
    """Of its server."""


class Benched(ABC):
    """An exporter's consumer with a scorer and a benchmark."""

    runtimes: tuple[str, ...]
    """Runtimes of targets that it is."""
    suffix: str = ""
    """Of a model's file; empty where it is a folder."""
    settings: tuple[Setting, ...]

    @abstractmethod
    def sections(
        self, reference: Model, models: Sequence[Model], work: Workload | None
    ) -> list[Section]:
        """The steps of the reference, which is scored only, and of every model."""


class Served(Benched):
    """Folders that a server loads; lm-eval asks it."""

    settings = (TASKS, PORT)

    def sections(
        self, reference: Model, models: Sequence[Model], work: Workload | None
    ) -> list[Section]:
        """As `Benched.sections`."""
        return [self._section(reference, None), *(self._section(one, work) for one in models)]

    @abstractmethod
    def _section(self, model: Model, work: Workload | None) -> Section:
        """The steps of one model; it is not timed where there is no work."""


class Vllm(Served):
    """Folders that vLLM serves."""

    runtimes = ("vllm",)

    def _section(self, model: Model, work: Workload | None) -> Section:
        served = [steps.server_score(model.name, model.path)]
        alone = []
        if work is not None:
            served += steps.vllm_load(model.name, model.path, work)
            alone = list(steps.vllm_calls(model.name, model.path, model.options, work))
        return Section(
            title=model.name,
            name=model.name,
            serve=("vllm", "serve", model.path, *model.options, "--served-model-name",
                   model.name, "--port", "$PORT"),
            served=tuple(served),
            alone=tuple(alone),
        )  # fmt: skip


class TensorRtLlm(Served):
    """Folders that TensorRT-LLM serves."""

    runtimes = ("tensorrt-llm",)

    def _section(self, model: Model, work: Workload | None) -> Section:
        alone = () if work is None else tuple(steps.tensorrt_load(model.name, model.path, work))
        return Section(
            title=model.name,
            name=model.name,
            serve=("trtllm-serve", model.path, "--port", "$PORT"),
            served=(steps.server_score(model.name, model.path),),
            alone=alone,
        )


class LlamaCpp(Benched):
    """Files that llama.cpp runs; its own programs score and time them."""

    runtimes = ("llama-cpp",)
    suffix = ".gguf"
    settings = (TEXT,)

    def sections(
        self, reference: Model, models: Sequence[Model], work: Workload | None
    ) -> list[Section]:
        """As `Benched.sections`."""
        first = Section(title=reference.name, alone=tuple(steps.llama_reference(reference.path)))
        return [first, *(self._section(one, work) for one in models)]

    def _section(self, model: Model, work: Workload | None) -> Section:
        timed = () if work is None else tuple(steps.llama_calls(model.name, model.path, work))
        score = steps.llama_score(model.name, model.path)
        return Section(title=model.name, alone=(score, *timed))


BENCHED: dict[str, tuple[Benched, ...]] = {
    "compressed-tensors": (Vllm(),),
    "gguf": (LlamaCpp(),),
    "modelopt": (TensorRtLlm(), Vllm()),
}
"""By exporter; of several the first that a target of the run runs."""
