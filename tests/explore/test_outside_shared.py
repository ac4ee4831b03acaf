"""What a finished run goes on with outside works as well where its study is shared."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from dse.errors import RunError
from dse.explore import Overrides, run_search
from dse.explore.measure.parallelism import Parallelism
from dse.explore.propose import propose
from dse.explore.reprice import reprice
from dse.explore.study.storage import shown
from dse.explore.tell import tell
from tests.explore import postgresql, redis_server
from tests.explore.server import served

SMOKE = Path("spaces/smoke.yaml")
FEW = Overrides(trials=5)
OTHER = Overrides(targets=("b200-sxm:free",))


@pytest.fixture(
    scope="module",
    params=[
        "journal",
        pytest.param("postgresql", marks=pytest.mark.postgresql),
        pytest.param("redis", marks=pytest.mark.redis),
    ],
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    # pytest's own temporary folders are closed to the database's user.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        if request.param == "journal":
            yield str(Path(folder) / "shared.log")
        else:
            module = {"postgresql": postgresql, "redis": redis_server}[request.param]
            with served(module.Server(Path(folder) / "server")) as server:
                yield server.url


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "own"
    run_search(SMOKE, overrides=FEW, out=folder)
    return folder


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A run that keeps its own study."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def run(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with a shared study."""
    folder = tmp_path_factory.mktemp("runs") / "shared"
    run_search(
        SMOKE, overrides=FEW, out=folder, parallelism=Parallelism(storage=url, study="smoke")
    )
    return folder


def _table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / name).set_index("digest").drop(columns="trial").sort_index()


def test_other_targets_reuse_what_a_shared_study_has(
    own: Path, run: Path, url: str, tmp_path: Path
) -> None:
    reprice(run, overrides=OTHER, out=tmp_path / "shared", storage=url)
    reprice(own, overrides=OTHER, out=tmp_path / "own")
    for name in ("trials.csv", "front.csv"):
        pd.testing.assert_frame_equal(
            _table(tmp_path / "shared", name), _table(tmp_path / "own", name)
        )
    run_search(tmp_path / "shared" / "space.yaml", out=tmp_path / "shared", resume=True)


def test_proposals_and_measurements_go_through_the_shared_study(
    own: Path, run: Path, url: str, tmp_path: Path
) -> None:
    found = propose(run, 2, tmp_path / "next", storage=url)
    assert [p.digest for p in found] == [p.digest for p in propose(own, 2, tmp_path / "own")]
    peer = tmp_path / "peer"
    run_search(
        SMOKE,
        overrides=FEW,
        out=peer,
        parallelism=Parallelism(storage=url, study="smoke", join=True),
    )
    more = propose(peer, 2, tmp_path / "more", storage=url)
    assert not {p.digest for p in found} & {p.digest for p in more}
    results = tmp_path / "results.csv"
    results.write_text(f"digest,quality_loss\n{found[0].digest},1e-7\n")
    lesson = tell(run, results, storage=url)
    assert lesson.new == 1
    assert found[0].digest in _table(run, "front.csv").index
    late = tmp_path / "late"
    run_search(
        SMOKE,
        overrides=FEW,
        out=late,
        parallelism=Parallelism(storage=url, study="smoke", join=True),
    )
    assert _table(late, "trials.csv").loc[found[0].digest, "source"] == "user"


def test_a_hidden_password_has_to_be_given_again(run: Path, url: str, tmp_path: Path) -> None:
    assert json.loads((run / "manifest.json").read_text())["storage"] == shown(url)
    if url.endswith(".log"):  # a file elsewhere, which a manifest alone opens for nobody
        with pytest.raises(RunError, match="if you know that place, name it: --storage"):
            propose(run, 1, tmp_path / "next")
    elif shown(url) == url:
        propose(run, 1, tmp_path / "next")
    else:
        with pytest.raises(RunError, match=r"\*\*\*.*with its password: --storage URL"):
            propose(run, 1, tmp_path / "next")


def test_a_study_that_is_gone_or_of_another_search_is_refused(
    own: Path, run: Path, url: str, tmp_path: Path
) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    with pytest.raises(RunError, match="not shared"):
        propose(own, 1, tmp_path / "next", storage=url)
    for change, says in (
        ({"study": "smoky"}, "'smoky' is not in .*did you mean 'smoke'"),
        ({"dse": "0.0.1"}, "is another search: its dse differs"),
    ):
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        (other / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(RunError, match=says):
            reprice(other, overrides=OTHER, out=tmp_path / "new", storage=url)
        assert not (tmp_path / "new").exists()
