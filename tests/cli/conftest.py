"""The command line as a user calls it, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dse.cli.app import main
from tests.run.synthetic import write_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


Dse = Callable[..., Outcome]

SMALLER = {
    "calibration: 16": "calibration: 4",
    "search: 32": "search: 8",
    "report: 32": "report: 8",
    "sensitivity_samples: 32": "sensitivity_samples: 4",
}


@pytest.fixture
def dse(capsys: pytest.CaptureFixture[str]) -> Dse:
    def call(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        text = capsys.readouterr()
        return Outcome(code=int(end.value.code or 0), out=text.out, err=text.err)

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "fp4")


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """The smoke space with fewer samples still."""
    text = Path("spaces/smoke.yaml").read_text()
    for before, after in SMALLER.items():
        assert before in text
        text = text.replace(before, after)
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return path
