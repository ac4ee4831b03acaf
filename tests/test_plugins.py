"""Code that a space names: of an installed module or of its own folder, and of nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from dse.data import check_source
from dse.data.source import read_pool
from dse.errors import DataError
from dse.plugins import code_file, named_object
from hwmodels.errors import PluginError

SHAPES = {"x": ("batch", 2)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "space").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    return tmp_path / "space"


def _write(path, body="import numpy\n    return {'x': numpy.ones((3, 2))}"):
    path.write_text(f"def samples():\n    {body}\n")


@pytest.mark.parametrize("name", ["own_samples.py:samples", "own_samples:samples"])
def test_functions_of_files_in_the_folder_give_data(folder, name):
    _write(folder / "own_samples.py")
    check_source(name, folder)
    split = read_pool(name, 3, 1, SHAPES, folder)
    np.testing.assert_array_equal(split.inputs["x"], np.ones((3, 2)))


def test_two_folders_may_call_their_files_alike(folder, tmp_path):
    for place, value in ((folder, 1), (tmp_path, 2)):
        (place / "alike.py").write_text(f"value = {value}\n")
    assert [named_object("alike:value", p) for p in (folder, tmp_path, folder)] == [1, 2, 1]


def test_a_module_of_the_working_directory_is_not_taken_for_an_installed_one(folder, tmp_path):
    _write(tmp_path / "elsewhere" / "planted.py")
    with pytest.raises(DataError, match="no module 'planted' is installed"):
        check_source("planted:samples", folder)
    found = code_file("planted:samples", tmp_path / "elsewhere")
    assert found is not None
    assert found.name == "planted.py"


@pytest.mark.parametrize("name", ["../out.py:samples", "{}/out.py:samples", "link.py:samples"])
def test_files_that_lead_out_of_the_folder_are_refused(folder, tmp_path, name):
    _write(tmp_path / "out.py")
    (folder / "link.py").symlink_to(tmp_path / "out.py")
    with pytest.raises(DataError, match="leads out of"):
        check_source(name.format(tmp_path), folder)


@pytest.mark.parametrize("name", ["sys:exit", "os:abort", "os.path:exists", "json:dumps"])
def test_modules_of_python_itself_are_refused(folder, name):
    with pytest.raises(PluginError, match="a module of Python itself"):
        named_object(name, folder)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("return 7", "expected a mapping of arrays"),
        ("return {}['x']", "KeyError"),
    ],
)
def test_a_function_that_gives_no_data_is_an_error(folder, body, message):
    _write(folder / "bad_samples.py", body)
    with pytest.raises(DataError, match=message):
        read_pool("bad_samples.py:samples", 3, 1, SHAPES, folder)
