"""A lineage in words, for a person."""

from typing import Any

from pipeline import terminal
from pipeline.history.lineage import NOT_RECORDED

_FILES = 10  # that are named; `--json` has all
_FIGURES = ("masked_lm_loss", "unigram_loss", "masked_lm_accuracy", "next_sentence_accuracy")


def lines(found: dict[str, Any]) -> list[str]:
    """What `lineage.trace` found, a few lines for each part."""
    model, data, vocabulary, evaluation = (found[part] for part in ("model", "data", "vocabulary", "evaluation"))
    state = [*found["labels"], *["rolled back"] * found["rolled_back"]]
    state += [] if found["standing"] else ["its folder is gone"]
    said = f" ({', '.join(state)})" if state else ""
    rows = [
        ("version", f"{found['version']} of {found['name']}{said}"),
        ("folder", found["folder"]),
        ("model", f"{model['identity']}, trained {trained(model, 19, ' in ')}"),
        ("", f"by run {model['run']}, pushed by run {model['pushed_by']}"),
        *(_rows(found["task"], data) if "task" in found else _files(data)),
        *_vocabulary(vocabulary),
        *([] if "task" in found else [("examples", _counts(found["examples"]["report"], "examples", "tokens"))]),
        ("settings", _settings(found["settings"])),
        ("code", _code(found["code"])),
        ("parent", _parent(found["parent"])),
        *_evaluation(evaluation),
    ]
    return [f"{title:12}{text}" for title, text in rows]


def trained(model: dict[str, Any], letters: int, between: str) -> str:
    """When, in so many letters, and for how long."""
    when, seconds = model["trained"], model["seconds"]
    return when if seconds == NOT_RECORDED else f"{when[:letters]}{between}{terminal.clock(seconds)}"


def _counts(report: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{report[name]:,} {name}" for name in names if name in report) or NOT_RECORDED


def _files(data: dict[str, Any]) -> list[tuple[str, str]]:
    report, files = data["report"], data["files"]
    sides = [report[name] for name in ("documents_train", "documents_eval") if name in report]
    documents = f"{sum(sides):,} documents ({sides[-1]:,} held out)" if sides else NOT_RECORDED
    if files == NOT_RECORDED:
        return [("data", f"{documents}; files and their hashes: {NOT_RECORDED}")]
    shown = [f"{file['file']}  {file['bytes']:,} bytes  sha256 {file['sha256']}" for file in files[:_FILES]]
    shown += [f"... and {len(files) - _FILES:,} more (--json)"] if len(files) > _FILES else []
    return [("data", f"{documents} of {len(files):,} files"), *(("", f"  {line}") for line in shown)]


def _rows(task: str, data: dict[str, Any]) -> list[tuple[str, str]]:
    """Of a fine-tuning."""
    told = [f"{split} {part['rows']:,} rows, hash {part['hash']}" for split, part in data["report"].items()]
    aside = sum(part["set_aside"] for part in data["report"].values())
    files = [] if data["files"] == NOT_RECORDED else data["files"]
    answers = data["answers"]
    known = answers if answers == NOT_RECORDED else ", ".join(answers[:_FILES]) or "none"
    more = f" and {len(answers) - _FILES:,} more" if answers != NOT_RECORDED and len(answers) > _FILES else ""
    return [
        ("task", task),
        ("data", ("; ".join(told) or NOT_RECORDED) + (f"; {aside:,} set aside" if aside else "")),
        *(("", f"  {file['file']}  {file['bytes']:,} bytes  sha256 {file['sha256']}") for file in files),
        ("labels", known + more),
    ]


def _vocabulary(vocabulary: dict[str, Any]) -> list[tuple[str, str]]:
    report, origin = vocabulary["report"], vocabulary["taken_from"]
    how = origin if origin == NOT_RECORDED else f"taken from {origin}" if origin else "learned"
    unknown = f", [UNK] {report['unknown_share']:.4%} of held-out pieces" if "unknown_share" in report else ""
    size = f"{report['size']:,} tokens, " if "size" in report else ""
    return [("vocabulary", f"{size}{how}{unknown}"), ("", f"  sha256 {vocabulary['sha256']}")]


def _settings(settings: dict[str, Any]) -> str:
    if "task" in settings:
        stated = ", ".join(f"{name} {value}" for name, value in settings["options"].items())
        return f"{stated or 'all as they are by default'} (--json: all)"
    if not settings:
        return NOT_RECORDED
    encoder, training = settings["encoder"], settings["training"]
    recipe = f"recipe {settings['recipe']}, " if settings.get("recipe") else ""
    return (
        f"{recipe}{encoder['num_layers']} layers of {encoder['hidden_size']}, {training['steps']:,} steps of "
        f"{training['batch_size']:,} at {training['learning_rate']:g} (--json: all)"
    )


def _code(code: dict[str, Any]) -> str:
    steps = ", ".join(f"{step} {value}" for step, value in code.items() if step != "state")
    state = code["state"]
    if state == NOT_RECORDED or state["commit"] is None:
        return f"commit {NOT_RECORDED}; {steps}"
    return f"commit {state['commit'][:12]}{' and changes' if state['changed'] else ''}; {steps}"


def _parent(parent: dict[str, Any] | None) -> str:
    if parent is None:
        return "none: trained from random weights"
    versions = ", ".join(parent["versions"])
    return f"{f'version {versions}, ' if versions else ''}{parent['checkpoint']}"


def _evaluation(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    metrics, blessed = evaluation["metrics"], evaluation["blessed"]
    figures = NOT_RECORDED
    if metrics != NOT_RECORDED:
        names = [name for name in _FIGURES if name in metrics] or list(metrics)[:4]
        figures = ", ".join(f"{name} {metrics[name]:.4f}" for name in names)
    verdict = blessed if blessed == NOT_RECORDED else "passed" if blessed else "not passed"
    return [
        ("gate", f"{verdict}; {figures}"),
        ("baseline", f"version {evaluation['baseline']}" if evaluation["baseline"] else "none"),
    ]
