"""The report as one page: everything in it, nothing fetched, whatever stands in the data."""

import html.parser
import json

import pytest
from matplotlib import figure

from pipeline.history import lineage
from pipeline.history.homes import Home, read_json
from pipeline.runs import page
from pipeline.runs.record import Record
from tests.pipeline.history.small_home import SmallHome
from tests.pipeline.runs import looked_at


@pytest.fixture
def small(tmp_path):
    return SmallHome(tmp_path / "home")


def report(small, **changes):
    found = read_json(small.folder / "reports" / "report.json")
    figures = {"masked_lm_loss_gain": 0.5, "masked_lm_accuracy_gain": -0.25}
    metrics = found["metrics"] | figures
    counts = {"documents_train": 9, "documents_eval": 1, "lines": 100, "lines_set_aside": 2}
    return found | {
        "metrics": metrics,
        "documents": counts,
        "examples": {"examples": 1234},
        "vocabulary": {"size": 8},
        "compared": False,
        **changes,
    }


class Fetched(html.parser.HTMLParser):
    """What a page would fetch, and whether its tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.fetched += [
            value for name, value in attributes if name in ("src", "href") and not value.startswith(("data:", "#"))
        ]
        assert tag != "script"

    def handle_data(self, data):
        self.text += data


def written(small, found, traced=None):
    folder = small.folder / "reports"
    page.write(folder, read_json(folder / "run.json"), found, traced)
    return Fetched((folder / page.NAME).read_text())


def test_everything_is_in_it_and_nothing_is_fetched(small):
    version = small.run()
    folder = small.folder / "reports"
    (folder / "curves.png").write_bytes(b"\x89PNG")
    aside = {"file": "a.txt", "line": 3, "reason": "not UTF-8", "text": "<script>alert(1)</script>"}
    (folder / "set_aside.jsonl").write_text(json.dumps(aside) + "\n")
    traced = lineage.trace(Home.open(small.folder), small.serving, version)
    found = written(small, report(small, refusals=["masked_lm_accuracy_gain is -0.25. it must"]), traced)
    assert found.fetched == []
    for said in (
        "bert: pushed",
        "at least 0.5 nats below the unigram distribution's",
        "refused",
        "2 of 100 lines could not be used",
        "<script>alert(1)</script>",  # as text
        "Trainer",
        f"version {version}",
        "gate: passed",
        "sha256 " + "ab" * 32,
    ):
        assert said in found.text
    assert found.text.count("passed") >= 2


def picture(path):
    figure.Figure().savefig(path)


def test_it_is_seen_in_a_browser_whatever_is_in_it(small):
    version, long = small.run(), "x" * 300
    folder = small.folder / "reports"
    picture(folder / "curves.png")
    aside = {"file": f"/{long}/a.txt", "line": 3, "reason": "not UTF-8", "text": f"<img src=https://x.org/a.png>{long}"}
    (folder / "set_aside.jsonl").write_text(json.dumps(aside) + "\n")
    line = {"feature": "language", "what": f"share of {long}", "before": 0.0, "now": 0.125, "distance": 0.125}
    line |= {"bound": 0.2, "against": "span 1", "of": "span 2", "passes": True}
    traced = lineage.trace(Home.open(small.folder), small.serving, version)
    page.write(folder, read_json(folder / "run.json"), report(small, drift=[line]), traced)
    titles = ["Gate", "On what the model has not seen", "Curves", "Drift", "Data", "Steps", "Set aside", "Lineage"]
    assert looked_at.sections(folder / page.NAME) == titles


def test_parts_and_drift_are_tables(small):
    small.run()
    line = {"feature": "language", "what": "share of '<de>'", "before": 0.0, "now": 0.125, "distance": 0.125}
    line |= {"bound": 0.2, "against": "span 1", "of": "span 2", "passes": True}
    part = {"predictions": 4321, "masked_lm_loss": 5.25, "masked_lm_accuracy": 0.375}
    slices = {"length": {"1 to 32 tokens": part, "33 to 64 tokens": part}}
    told = written(small, report(small, drift=[line, line | {"passes": False}], slices=slices)).text
    for said in ("share of '<de>': span 1, span 2", "0.125", "refused", "33 to 64 tokens", "4,321", "5.25", "0.375"):
        assert said in told
    assert told.count("length") == 1


def test_spans_and_a_model_that_was_refused(small):
    small.run(blessed=False)
    spans = {"1": {"documents_train": 9, "documents_eval": 1, "taken_over": True}}
    documents = report(small)["documents"] | {"spans": spans}
    examples = {"examples": 5, "spans": {"1": {"examples": 5, "taken_over": False}}}
    vocabulary = {"size": 8, "unknown_share_by_span": {"1": 0.0125}}
    found = written(small, report(small, documents=documents, examples=examples, vocabulary=vocabulary))
    assert "bert: not blessed" in found.text
    assert "10 taken over" in found.text
    assert "5 made" in found.text
    assert "1.25%" in found.text
    assert "Lineage" not in found.text


def test_a_page_that_cannot_be_written_fails_no_run(small, caplog):
    small.run()

    page.of_run(small.folder, Record(small.folder / "reports", "bert"), {"pushed_to": None})
    assert "could not be written" in caplog.text


def test_a_fine_tuning_is_told_by_its_own_figures(small):
    small.run()
    split = {"rows": 1234, "unlabelled": 0, "set_aside": 7}
    folder = small.folder / "reports"
    (folder / "errors.tsv").write_text("file\tline\tgold\tanswer\tcost\ttext\n" + "a.tsv\t7\tdry\twet\t2.5\t<b>\n" * 30)
    (folder / "set_aside.tsv").write_text("a.tsv\t9\ttext (1) is empty\n")
    (folder / "confusion.png").write_bytes(b"\x89PNG")
    part = {"rows": 321, "accuracy": 0.6875, "macro_f1": 0.6}
    found = {
        **{name: report(small)[name] for name in ("pushed_to", "rolled_back")},
        "tuned": {"slices": {"length": {"0 to 64 characters": part}}},
        "task": "classification",
        "first": "accuracy",
        "floor": 0.5,
        "metrics": {"accuracy": 0.75, "first_figure": 0.75, "gain": 0.25},
        "untrained": {"accuracy": 0.625},
        "data": {"train": split, "eval": split},
        "refusals": ["gain is 0.25. it must"],
        "compared": False,
    }
    told = written(small, found).text
    for said in ("0.75", "0.625", "of an untrained encoder", "refused", "1,234", "no earlier model to compare it with"):
        assert said in told
    for said in ("0 to 64 characters", "321", "0.6875", "macro f1", "Confusion", "text (1) is empty"):
        assert said in told
    assert told.count("<b>") == 20
    assert "masked" not in told
    picture(folder / "confusion.png")
    written(small, found)
    titles = looked_at.sections(folder / page.NAME)
    assert titles[2:] == ["Parts of it", "Confusion", "Costliest mistakes", "Data", "Steps", "Set aside"]
