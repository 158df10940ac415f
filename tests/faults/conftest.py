import pytest

from tests.faults import tiny


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    with tiny.runs(tmp_path_factory.mktemp("runs")) as found:
        yield found


@pytest.fixture(scope="session")
def undisturbed(runs, tmp_path_factory):
    """A home in which one run ran."""
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    runs.finish(home)
    return home
