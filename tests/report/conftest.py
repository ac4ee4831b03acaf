from tests.run.fixtures import finished, folder, run  # noqa: F401 (fixtures)
