import pytest

from tests.pipeline.history.small_home import SmallHome


@pytest.fixture
def small(tmp_path):
    return SmallHome(tmp_path / "home")
