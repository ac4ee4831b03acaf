"""Devices and runtimes that other people's packages bring."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwmodels.devices.load import DEVICES
from hwmodels.runtimes.load import RUNTIMES

ROOT = Path(__file__).parents[2]


def _package(site: Path, files: dict[str, bytes], *, value: str = "acme_chips.devices") -> Path:
    """An installed package `acme-chips` that brings device files, and a runtime."""
    folder = site / "acme_chips"
    (folder / "devices").mkdir(parents=True)
    (folder / "runtimes").mkdir()
    (folder / "__init__.py").write_text("")
    for name, content in files.items():
        (folder / "devices" / name).write_bytes(content)
    runtime = RUNTIMES.path("vllm").read_text(encoding="utf-8")
    (folder / "runtimes" / "acme-rt.yaml").write_text(
        runtime.replace("name: vllm", "name: acme-rt")
    )
    info = site / "acme_chips-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-chips\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[dse.devices]\nacme = {value}\n[dse.runtimes]\nacme = acme_chips.runtimes\n"
    )
    return site


def _dse(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dse.cli import main; main()", *arguments]
    path = os.pathsep.join((str(ROOT), str(site)))
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def chip() -> bytes:
    """The L4's file under another name."""
    text = DEVICES.path("l4").read_text(encoding="utf-8")
    return text.replace("name: l4", "name: acme-1", 1).encode()


def test_an_entry_point_brings_devices_and_runtimes(tmp_path: Path, chip: bytes) -> None:
    site = _package(tmp_path, {"acme-1.yaml": chip})
    assert "acme-1" in _dse(site, "devices").stdout
    assert "acme-rt" in _dse(site, "runtimes").stdout
    done = _dse(
        site, "predict", "zoo:byte-gpt", "--device", "acme-1:acme-rt",
        "--dim", "batch=1", "--dim", "sequence=64", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"device": "acme-1"' in done.stdout
    assert '"runtime": "acme-rt"' in done.stdout
    assert "acme-1" not in _dse(tmp_path / "elsewhere", "devices").stdout


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("l4.yaml", "acme_chips.devices", "of package acme-chips has the name of"),
        ("acme-1.yaml", "acme_chips.missing", "no such package; expected a package whose folder"),
        ("acme-1.yaml", "acme_chaps", "no such package"),
        ("acme-1.yaml", "acme_chips:devices", "expected a package whose folder"),
    ],
)
def test_a_package_that_brings_something_wrong_is_named(
    tmp_path: Path, chip: bytes, name: str, value: str, says: str
) -> None:
    done = _dse(_package(tmp_path, {name: chip}, value=value), "devices")
    assert done.returncode == 2
    assert "acme-chips" in done.stderr
    assert says in " ".join(done.stderr.split())


def test_a_wrong_file_of_a_package_is_named_by_its_path(tmp_path: Path, chip: bytes) -> None:
    done = _dse(_package(tmp_path, {"acme-1.yaml": chip + b"yaer: 3\n"}), "devices")
    assert done.returncode == 2
    assert "acme_chips/devices/acme-1.yaml: yaer: unknown key" in done.stderr


def test_another_gpu_under_a_known_name_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its trees, samples and intervals would be those of the known one."""
    text = DEVICES.path("l4").read_text(encoding="utf-8")
    copied, changed, own = (tmp_path / f"{name}.yaml" for name in ("copied", "changed", "own"))
    copied.write_text(text, encoding="utf-8")
    assert DEVICES.load(copied) == DEVICES.load("l4")
    other = text.replace("memories:\n  - name: dram", "memories:\n  - name: main")
    assert other != text
    changed.write_text(other, encoding="utf-8")
    assert not caplog.messages
    for _ in range(2):
        assert DEVICES.load(changed) != DEVICES.load("l4")
    (said,) = caplog.messages
    assert "changed.yaml: name: l4 is a known device, from which this file differs" in said
    own.write_text(other.replace("name: l4", "name: my-l4", 1), encoding="utf-8")
    assert DEVICES.load(own).name == "my-l4"
    assert len(caplog.messages) == 1


def test_another_runtime_under_a_known_name_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.yaml"
    text = RUNTIMES.path("vllm").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    assert RUNTIMES.load(path) == RUNTIMES.load("vllm")
    path.write_text(text.replace("epilogue: [bias]", "epilogue: []"), encoding="utf-8")
    RUNTIMES.load(path)
    assert "name: vllm is a known runtime, from which this file differs" in caplog.text
