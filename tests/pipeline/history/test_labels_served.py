"""The embedded server takes over what `bert promote`, `bert rollback` and a push write, while it answers."""

import json
import time
import urllib.error
import urllib.request

from pipeline.components.pushed import push
from pipeline.history import labels
from serving.server import config_files
from tests.serving import served


def version_of(running, path):
    """Of the toy that answers; None where none does."""
    request = urllib.request.Request(f"{running.rest}/v1/models/{path}:predict", b'{"instances": ["x"]}')
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)["predictions"][0]["version"]
    except urllib.error.HTTPError:
        return None


def becomes(running, path, expected):
    until = time.monotonic() + 20
    while version_of(running, path) != expected:
        assert time.monotonic() < until, running.lines
        time.sleep(0.05)


def test_labels_move_on_and_back_while_it_answers(tmp_path):
    serving, file, pushed = str(tmp_path / "serving" / "toy"), tmp_path / "serving" / "models.config", {}

    def push_toy(number):
        (tmp_path / "made").mkdir(exist_ok=True)
        pushed[number] = push(str(served.save(tmp_path / "made", number)), serving).rpartition("/")[2]

    push_toy(1)
    assert labels.promote(file, serving, pushed[1], "stable")
    followed = {"model_config_file": str(file), "model_config_file_poll_wait_seconds": 0.1}
    settings = served.settings(tmp_path, models=config_files.read_models(str(file)), **followed)
    with served.running(settings) as running:
        assert version_of(running, "toy/labels/stable") == 1
        push_toy(2)
        becomes(running, f"toy/versions/{pushed[2]}", 2)
        assert version_of(running, "toy/labels/stable") == 1
        assert labels.promote(file, serving, pushed[2], "stable")
        becomes(running, "toy/labels/stable", 2)
        assert labels.roll_back(file, serving, "stable") == (pushed[2], pushed[1])
        becomes(running, "toy/labels/stable", 1)
        becomes(running, f"toy/versions/{pushed[2]}", None)  # unloaded
        assert not labels.promote(file, serving, pushed[2], "canary")
        becomes(running, f"toy/versions/{pushed[2]}", 2)
        assert labels.promote(file, serving, pushed[2], "canary")
        becomes(running, "toy/labels/canary", 2)
        assert version_of(running, "toy/labels/stable") == 1
