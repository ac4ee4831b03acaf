"""Folders that several tests read, and a cache of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.imports import families
from tests.imports.store import fetch, keep, place


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest) -> Path:
    """Graphs of earlier exports, by the importer's code."""
    return place(request.config)


@pytest.fixture(scope="session")
def llama(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Llama in bfloat16 with tied embeddings, in several shards."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    families.save("llama", folder, dtype=torch.bfloat16)
    families.reference(folder).to(torch.bfloat16).save_pretrained(folder, max_shard_size="80kB")
    (folder / "model.safetensors").unlink()
    for form in (False, True):
        fetch(folder, store, served=form)
    yield folder
    for form in (False, True):
        keep(folder, store, served=form)
