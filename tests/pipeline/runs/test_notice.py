"""What a webhook is told of a run that failed or whose model was refused."""

import pathlib

import pytest

from pipeline import settings as pipeline_settings
from pipeline.runs import notice, record
from pipeline.runs import run as runs
from preprocessing.errors import InputError
from tests.pipeline.webhook import listening

HOME = pathlib.Path("/home")


def of_run(run, *nodes):
    found = record.Record(HOME, "bert", run)
    found.nodes = [{"node": node} for node in nodes]
    return found


def test_step_cause_and_next_action_are_posted():
    with listening() as (url, posted):
        assert notice.send(url, notice.failed(of_run("r1", "Trainer"), HOME, "out of memory", False))
        assert notice.send(url, notice.failed(of_run("r2", "CorpusGen"), HOME, "a.txt:3: broken", True))
    assert (posted[0]["state"], posted[0]["step"], posted[0]["cause"]) == ("failed", "Trainer", "out of memory")
    assert posted[0]["next"] == "look into /home/logs/pipeline.log, then run again: it goes on where it stopped"
    assert posted[1]["text"].startswith("bert: run r2 failed in CorpusGen: a.txt:3: broken. Next: correct that and run")


def test_an_unblessed_model_and_one_that_was_rolled_back():
    report = {"rolled_back": False, "refusals": ["masked_lm_loss_gain is -1"]}
    said = notice.refused(of_run("r"), HOME, report)
    assert (said["state"], said["cause"]) == ("not blessed", "masked_lm_loss_gain is -1")
    assert "what is served stays" in said["next"]
    assert said["see"] == "/home/reports/runs/r/report.json"
    assert notice.refused(of_run("r"), HOME, report | {"rolled_back": True})["state"] == "rolled back"
    said = notice.refused(of_run("r"), HOME, report | {"outdated": True})
    assert (said["state"], said["cause"]) == ("outdated", "a model of later data is served")


def test_one_that_does_not_arrive_is_logged_without_its_path(caplog):
    with listening(500) as (url, _):
        assert not notice.send(url, {})
    assert not notice.send(url, {})  # nobody listens any more
    assert len(caplog.messages) == 2
    assert all("127.0.0.1" in line and "secret" not in line for line in caplog.messages)
    assert not notice.send(None, {})


def test_the_address_may_stand_in_the_environment(monkeypatch):
    monkeypatch.delenv("HOOK", raising=False)
    assert notice.address("$HOOK") is None
    monkeypatch.setenv("HOOK", "https://a/b")
    assert notice.address("$HOOK") == "https://a/b"
    assert notice.address("http://c") == "http://c"
    with pytest.raises(InputError, match=r"webhook must be a URL, or \$NAME"):
        notice.address("c")


def test_a_run_that_fails_or_is_refused_tells_the_webhook_and_ends_with_its_own_status(tmp_path, monkeypatch):
    ends = iter(
        [
            {"pushed_to": None, "rolled_back": False, "refusals": ["masked_lm_loss_gain is -1"]},
            {"pushed_to": None, "rolled_back": True, "refusals": []},
            {"pushed_to": None, "outdated": True, "refusals": []},
            {"pushed_to": "/serving/bert/1"},
            KeyError("x"),
            KeyboardInterrupt(),
        ]
    )

    def run(settings, home, record):
        end = next(ends)
        if isinstance(end, BaseException):
            record.begin("Trainer")
            raise end
        return end

    monkeypatch.setattr(runs, "_run", run)
    with listening() as (url, posted):
        settings = pipeline_settings.smoke().replace(webhook=url)
        for why in ("did not pass the gate", "was rolled back", "is of earlier data"):
            with pytest.raises(runs.Refused, match=why) as refused:
                runs.run(settings, tmp_path)
            assert refused.value.status == 3
        runs.run(settings, tmp_path)
        with pytest.raises(KeyError):
            runs.run(settings, tmp_path)
        with pytest.raises(KeyboardInterrupt):
            runs.run(settings, tmp_path)
    assert [notice["state"] for notice in posted] == ["not blessed", "rolled back", "outdated", "failed"]
    assert (posted[3]["step"], posted[3]["cause"]) == ("Trainer", "KeyError: 'x'")
