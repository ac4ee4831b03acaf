"""The embedded default models, their data, and loaders of pretrained ones. Imports no torch."""

from __future__ import annotations

from dse.zoo.catalogue import CATALOGUE, ZooModel, resolve
from dse.zoo.data import splits
from dse.zoo.errors import ZooError
from dse.zoo.image_folder import read_image_folder
from dse.zoo.split import Split, Splits

__all__ = [
    "CATALOGUE",
    "Split",
    "Splits",
    "ZooError",
    "ZooModel",
    "read_image_folder",
    "resolve",
    "splits",
]
