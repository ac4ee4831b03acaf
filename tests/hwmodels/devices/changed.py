"""Files of shipped devices with something changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hwmodels.devices.load import DEVICES

Content = dict[str, Any]


def changed(name: str, folder: Path, change: Callable[[Content], object]) -> Path:
    """A copy of a device's file whose content `change` has changed in place."""
    content = yaml.safe_load((DEVICES.folder / f"{name}.yaml").read_text(encoding="utf-8"))
    change(content)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
