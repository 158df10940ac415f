"""The time is shared by the tests that are run."""

from tests import fuzz


def pytest_collection_finish(session):
    fuzz.share = fuzz.SECONDS / max(1, len([item for item in session.items if item.get_closest_marker("fuzz")]))
