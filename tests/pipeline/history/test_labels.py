"""`bert promote` and `bert rollback`, and what the next push and the servers make of them."""

import json
import pathlib
import shutil

import pytest
from click.testing import CliRunner

from pipeline import cli
from pipeline.components import baseline
from pipeline.components.pushed import push
from pipeline.history import labels, pushed
from preprocessing.errors import InputError
from serving.server import config_files


def bert(*arguments):
    result = CliRunner().invoke(cli.bert, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.fixture
def home(small):
    """Four versions."""
    small.versions = [
        small.run(begins_with="CorpusGen" if not number else "Trainer", seed=number) for number in range(4)
    ]
    small.models = [pushed.read(small.serving)["versions"][version]["from"] for version in small.versions]
    small.config = small.folder / "serving" / "models.config"
    return small


def served(home):
    (model,) = config_files.read_models(str(home.config))
    assert (model.name, model.base_path, model.policy) == ("bert", home.serving, "specific")
    return [home.versions.index(str(version)) for version in model.versions], {
        label: home.versions.index(str(version)) for label, version in model.labels
    }


def promote(home, number, label="stable"):
    return bert("promote", home.versions[number], "--label", label, "--home", home.folder)


def test_a_label_moves_on_and_back(home):
    assert f"stable is version {home.versions[0]} now" in promote(home, 0)
    assert served(home) == ([0, 3], {"stable": 0})
    promote(home, 3)
    assert served(home) == ([0, 3], {"stable": 3})  # what it would go back to stays loaded
    assert bert("promote", "latest", "--label", "canary", "--home", home.folder)
    assert served(home) == ([0, 3], {"stable": 3, "canary": 3})
    text = bert("rollback", "--home", home.folder)
    assert f"stable is version {home.versions[0]} again" in text
    assert f"Version {home.versions[3]} is rolled back" in text
    assert served(home) == ([0, 2, 3], {"stable": 0, "canary": 3})
    bert("promote", home.versions[0], "--label", "canary", "--home", home.folder)
    assert served(home) == ([0, 2], {"stable": 0, "canary": 0})  # no label, and not to go back to
    with pytest.raises(InputError, match=r"an earlier version that had label 'stable' must be there"):
        labels.roll_back(home.config, home.serving, "stable")
    with pytest.raises(InputError, match=r"bert must have a label to take back.*Received: beta"):
        labels.roll_back(home.config, home.serving, "beta")


def test_servers_first_load_a_version_that_they_were_not_told_of(home):
    promote(home, 0)
    text = promote(home, 1)
    assert f"servers are told to load version {home.versions[1]}" in text
    assert served(home) == ([0, 1, 3], {"stable": 0})
    assert "now" in promote(home, 1)
    assert served(home) == ([0, 1, 3], {"stable": 1})


def test_what_was_rolled_back_is_neither_pushed_again_nor_compared_with(home):
    promote(home, 2)
    promote(home, 3)
    bert("rollback", "--home", home.folder)
    assert push(home.models[3], home.serving) is None
    assert push(home.models[2], home.serving) == f"{home.serving}/{home.versions[2]}"  # it counts as the newest
    assert pathlib.Path(home.serving, home.versions[3]).is_dir()
    assert pushed.rolled_back(pushed.read(home.serving)) == {pushed.identity(home.models[3])}
    promote(home, 3)
    promote(home, 3)
    assert served(home)[1] == {"stable": 3}
    assert push(home.models[3], home.serving) == f"{home.serving}/{home.versions[3]}"


def test_a_version_that_is_taken_out_of_the_record_is_forgotten(home):
    promote(home, 0)
    promote(home, 3)
    bert("rollback", "--home", home.folder)
    file = pathlib.Path(home.serving, pushed.RECORD)
    record = json.loads(file.read_text())
    del record["versions"][home.versions[3]]
    file.write_text(json.dumps(record))
    assert not pushed.rolled_back(pushed.read(home.serving))
    assert push(home.models[3], home.serving)


def test_a_rolled_back_version_is_no_baseline(home, monkeypatch):
    monkeypatch.setattr(baseline, "_is_comparable", lambda *_: True)
    home.run(begins_with="Trainer", seed=9, blessed=False)
    candidate = f"{home.uri('Trainer')}/Format-Serving"
    assert baseline.find(home.serving, candidate) == f"{home.serving}/{home.versions[3]}"
    promote(home, 0)
    promote(home, 3)
    bert("rollback", "--home", home.folder)
    assert baseline.find(home.serving, candidate) == f"{home.serving}/{home.versions[2]}"


def test_servers_load_what_is_pushed_beside_what_has_a_label(home):
    promote(home, 0)
    home.versions.append(home.run(begins_with="Trainer", seed=7))
    assert served(home) == ([0, 4], {"stable": 0})


def test_other_models_and_policies_of_the_file_stay(home):
    home.config.write_text(
        'model_config_list { config { name: "other" base_path: "/other" version_labels { key: "a" value: 1 } } '
        'config { name: "bert" base_path: "/models/bert" model_version_policy { all {} } } }'
    )
    promote(home, 1)
    other, own = config_files.read_models(str(home.config))
    assert (other.name, other.labels) == ("other", (("a", 1),))
    assert (own.base_path, own.policy, own.labels) == ("/models/bert", "all", (("stable", int(home.versions[1])),))


def test_a_version_that_is_not_there(home):
    shutil.rmtree(f"{home.serving}/{home.versions[1]}")
    with pytest.raises(InputError, match=rf"{home.versions[1]}: a version that is served must be there whole"):
        promote(home, 1)
    assert not home.config.exists()
    with pytest.raises(InputError, match=r"a label must not read like a version\. Received: 'latest'"):
        promote(home, 0, "latest")
