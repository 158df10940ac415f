"""A run's report as one page that opens without a server: figures, gate, curves, data, steps, lineage."""

import base64
import html
import itertools
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline import terminal
from pipeline.components import task_examples
from pipeline.history import lineage, picture, runs, telling
from pipeline.history.homes import Home, read_json
from pipeline.runs.record import Record

NAME = "report.html"
_LINES = 20  # of a file that are shown
_WIDE = ("Gate", "Curves", "Set aside", "Costliest mistakes", "Drift", "Lineage")  # sections that have none beside them
_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
body { overflow-wrap: anywhere } main { display: flex; flex-wrap: wrap; gap: 0 4rem }
section { max-width: 100%; overflow-x: auto } section.wide { flex-basis: 100% }
h2 { margin: 2rem 0 .5rem; font-size: 1.15rem }
table { border-collapse: collapse } td, th { padding: .2rem 1.2rem .2rem 0; text-align: left; vertical-align: top }
td { border-top: 1px solid #8884 } td.number { text-align: right; white-space: nowrap }
th, td:not(:last-child) { overflow-wrap: break-word }
.passed { color: #1a7f37 } .refused { color: #cf222e; font-weight: 600 }
img { max-width: 100% } svg { width: 100%; min-width: 70rem; height: auto }
figure { margin: 0; background: white; overflow-x: auto; width: fit-content; max-width: 100% }
"""


class Raw(str):
    """HTML already; all else is escaped."""


def of_run(home: pathlib.Path, record: Record, report: dict[str, Any]) -> None:
    """Writes the page of a run that came to its end beside its reports. It is for people: a run that has pushed its
    model does not fail for the page."""
    folder = record.place()
    (folder / NAME).unlink(missing_ok=True)  # of an older run
    try:
        pushed = report["pushed_to"]
        found = lineage.trace(Home(home), report["serving_folder"], os.path.basename(pushed)) if pushed else None
        write(folder, read_json(folder / "run.json"), report, found)
        if folder != record.own_folder:
            shutil.copy(folder / NAME, record.own_folder)
    except Exception:
        logging.getLogger(__name__).exception("%s could not be written", folder / NAME)


def write(folder: pathlib.Path, run: dict[str, Any], report: dict[str, Any], traced: dict[str, Any] | None) -> None:
    """Writes `report.html` from `run.json` and `report.json` of a run that came to its end, the files beside them, and
    what `lineage.trace` found of the version that it pushed, if any."""
    state = "pushed" if report["pushed_to"] else runs.of_unpushed(report)
    gate = run.get("settings", {}).get("gate", {})
    data, *aside = _of_data(folder, report)
    tuned = "task" in report
    parts = report["tuned"].get("slices", {}) if tuned else report.get("slices", {})
    mistakes = _lines(folder / "errors.tsv", ("file", "line", "gold", "answer", "cost", "text"), 1) if tuned else ""
    sections = [
        ("Gate", _table(("figure", "value", "bound", "verdict"), _gate(report, gate))),
        ("On what the model has not seen", _held_out(report)),
        ("Parts of it", _slices(parts)),
        ("Confusion", _image(folder / "confusion.png", "how often which label was said of which")),
        ("Costliest mistakes", mistakes),
        ("Curves", _image(folder / "curves.png", "curves of the training")),
        ("Drift", _drift(report.get("drift", []))),
        data,
        ("Steps", _table(("step", "what it did", "took"), _steps(run["nodes"]))),
        *aside,
        ("Lineage", _lineage(traced)),
    ]
    title = f"{run['pipeline']}: {state}"
    body = "".join(
        f"<section{' class=wide' if name in _WIDE else ''}><h2>{_text(name)}</h2>\n{content}\n</section>\n"
        for name, content in sections
        if content
    )
    head = f"<p>Run {_text(run['run'])}, begun {_text(run['started'][:19])} UTC"
    head += f"; {_text(report['pushed_to'])}</p>" if report["pushed_to"] else "</p>"
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>\n'
        f"<h1>{_text(title)}</h1>\n{head}\n<main>\n{body}</main></html>\n"
    )
    (folder / NAME).write_text(page, "utf-8")


_BOUNDS: tuple[tuple[str, str, str], ...] = (
    ("masked_lm_loss_gain", "min_loss_gain", "at least {:.4g} nats below the unigram distribution's"),
    ("masked_lm_accuracy_gain", "min_accuracy_gain", "at least {:.4g} above the commonest token's"),
)
_CHANGE = ("masked_lm_loss", "max_loss_increase", "at most {:.4g} nats above that of the baseline")


def _gate(report: dict[str, Any], gate: dict[str, float]) -> Iterable[Sequence[Any]]:
    metrics, refusals = report["metrics"], report["refusals"]
    bounds, change = _BOUNDS, _CHANGE
    if "task" in report:
        bounds = (("gain", "min_gain", f"at least {{:.4g}} above {report['floor']:.4g} in {report['first']}"),)
        bound = f"{report['first']}, at most {{:.4g}} below that of the baseline"
        change = ("first_figure", "max_decrease", bound)
    for figure, setting, bound in (*bounds, change) if report["compared"] else bounds:
        refused = any(refusal.startswith(f"{figure} is ") for refusal in refusals)
        stated = bound.format(gate[setting]) if setting in gate else "not recorded"
        yield figure.replace("_", " "), metrics[figure], stated, _verdict(not refused)
    if not report["compared"]:
        yield change[0].replace("_", " "), metrics[change[0]], "there is no earlier model to compare it with", ""


def _held_out(report: dict[str, Any]) -> str:
    untrained, metrics = report.get("untrained"), report["metrics"]
    if not untrained:
        return _table(("figure", "value"), ((name.replace("_", " "), value) for name, value in metrics.items()))
    rows = ((name.replace("_", " "), value, untrained.get(name, "")) for name, value in metrics.items())
    return _table(("figure", "value", "of an untrained encoder, taught the same"), rows)


def _of_data(folder: pathlib.Path, report: dict[str, Any]) -> Iterable[tuple[str, str]]:
    if "task" not in report:
        return ("Data", _data(report)), ("Set aside", _set_aside(folder / "set_aside.jsonl", report))
    rows = [(name, *(part[key] for key in _COUNTS)) for name, part in report["data"].items()]
    aside = _lines(folder / task_examples.SET_ASIDE, ("file", "line", "why"), 0)
    return ("Data", _table(("split", *(name.replace("_", " ") for name in _COUNTS)), rows)), ("Set aside", aside)


_COUNTS = ("rows", "unlabelled", "set_aside")


def _data(report: dict[str, Any]) -> str:
    documents, examples, vocabulary = report["documents"], report["examples"], report["vocabulary"]
    rows = [("documents " + part, documents.get(f"documents_{part}", 0)) for part in ("train", "eval")]
    for what, found in (("examples", examples), ("vocabulary", vocabulary)):  # the counts of faults are mostly zero
        figures = [(name, value) for name, value in found.items() if isinstance(value, int | float) and value]
        rows += [(name if name == what else f"{what} {name}", value) for name, value in figures]
    said = _table(("figure", "value"), ((name.replace("_", " "), value) for name, value in rows))
    if "spans" in documents:
        shares = vocabulary.get("unknown_share_by_span", {})
        said += _table(
            ("span", "documents", "examples", "[UNK]"),
            (
                (
                    span,
                    f"{counts['documents_train'] + counts['documents_eval']:,} {_how(counts, 'read')}",
                    f"{examples['spans'][span]['examples']:,} {_how(examples['spans'][span], 'made')}",
                    f"{shares[span]:.2%}" if span in shares else "",
                )
                for span, counts in documents["spans"].items()
            ),
        )
    return said


def _how(counts: dict[str, Any], done: str) -> str:
    return "taken over" if counts["taken_over"] else done


def _set_aside(path: pathlib.Path, report: dict[str, Any]) -> str:
    count = report["documents"].get("lines_set_aside", 0)
    passed = report["documents"].get("passed_over", {})
    said = [f"{found['count']:,.0f} files passed over ({reason})" for reason, found in passed.items()]
    said = [f"{count:,.0f} of {report['documents'].get('lines', 0):,.0f} lines could not be used", *said]
    found = f"<p>{_text('; '.join(said))}</p>"
    if count and path.exists():
        with path.open(encoding="utf-8") as lines:
            first = [json.loads(line) for line in itertools.islice(lines, _LINES)]
        rows = [(line["file"], line["line"], line["reason"], line["text"][:200]) for line in first]
        found += _table(("file", "line", "why", "text"), rows)
    return found


def _slices(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Figures of parts of what was held out, by what they are told apart by."""
    rows = [
        (by if number == 0 else "", part, *figures.values())
        for by, parts in found.items()
        for number, (part, figures) in enumerate(parts.items())
    ]
    titles = [name.replace("_", " ") for parts in found.values() for figures in parts.values() for name in figures]
    return _table(("by", "part", *dict.fromkeys(titles)), rows) if rows else ""


def _lines(path: pathlib.Path, titles: Sequence[str], begin: int) -> str:
    """The first lines of a TSV, from one on; of the path in the first column its name."""
    if not path.exists():
        return ""
    with path.open(encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in itertools.islice(lines, begin, begin + _LINES)]
    cells = ([os.path.basename(file), *(cell[:200] for cell in more)] for file, *more in rows)
    return _table(titles, cells) if rows else ""


def _drift(lines: list[dict[str, Any]]) -> str:
    """What the gates of the data compared before the training."""
    rows = (
        (line["feature"], f"{line['what']}: {line['against']}, {line['of']}", line["before"], line["now"],
         line["distance"], line["bound"], _verdict(line["passes"]))
        for line in lines
    )  # fmt: skip
    return (
        _table(("feature", "of which is given", "before", "now", "distance", "bound", "verdict"), rows) if lines else ""
    )


def _verdict(passes: bool) -> Raw:
    word = "passed" if passes else "refused"
    return Raw(f'<span class="{word}">{word}</span>')


def _steps(nodes: list[dict[str, Any]]) -> Iterable[Sequence[Any]]:
    return ((node["node"], node["state"], terminal.clock(node.get("seconds", 0))) for node in nodes)


def _image(path: pathlib.Path, alt: str) -> str:
    if not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"></figure>'


def _lineage(traced: dict[str, Any] | None) -> str:
    if traced is None:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "lineage.svg")
        picture.draw(traced, path)
        drawn = path.read_text("utf-8")
    said = _text("\n".join(telling.lines(traced)))
    return f"<figure>{drawn[drawn.index('<svg') :]}</figure><pre style='white-space: pre-wrap'>{said}</pre>"


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{_text(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, int | float):
        return f'<td class="number">{terminal.number(value)}</td>'
    return f"<td>{value if isinstance(value, Raw) else _text(value)}</td>"


def _text(value: Any) -> str:
    return html.escape(str(value))
