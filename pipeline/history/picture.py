"""A lineage as a picture: what was made of what, from left to right."""

import pathlib
import textwrap
from typing import Any

from pipeline.history import telling
from pipeline.history.lineage import NOT_RECORDED
from preprocessing.errors import require

_FORMATS = (".svg", ".png")
_WIDTH, _COLUMN, _ROW = 2.4, 3.1, 1.5  # of a box, and from one to the next; inches
_COLOURS = {"data": "#dbe9f6", "model": "#d8f0dc", "judged": "#fdf0d0", "served": "#f6dbe6"}

Box = tuple[int, float, str, str, str]  # column, row, kind, title, text


def draw(found: dict[str, Any], path: str | pathlib.Path) -> None:
    """Writes what `lineage.trace` found to an SVG or PNG file. Raises InputError for another kind."""
    ending = pathlib.Path(path).suffix
    require(ending in _FORMATS, f"a picture must end in {' or '.join(_FORMATS)}", str(path))
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    boxes = _boxes(found)
    columns, rows = 1 + max(box[0] for box in boxes.values()), 2
    figure = Figure(figsize=(columns * _COLUMN, rows * _ROW))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, columns * _COLUMN), ylim=(rows * _ROW, 0))
    axes.set_axis_off()
    places = {name: (column * _COLUMN + 0.3, row * _ROW + 0.2) for name, (column, row, *_) in boxes.items()}
    height = _ROW - 0.4
    for name, (_, _, kind, title, text) in boxes.items():
        x, y = places[name]
        axes.add_patch(FancyBboxPatch((x, y), _WIDTH, height, "round,pad=0.05", fc=_COLOURS[kind], ec="#555555"))
        axes.text(x + 0.05, y + 0.08, title, fontsize=9, weight="bold", va="top")
        axes.text(x + 0.05, y + 0.32, text, fontsize=7, va="top", parse_math=False)
    for start, end in _EDGES:
        learned = end != "vocabulary" or not found["vocabulary"]["taken_from"]
        if start in places and end in places and learned:
            (from_x, from_y), (to_x, to_y) = places[start], places[end]
            below = from_x == to_x
            tail = (
                (from_x + _WIDTH / 2, from_y + height * (to_y > from_y))
                if below
                else (from_x + _WIDTH, from_y + height / 2)
            )
            head = (to_x + _WIDTH / 2, to_y + height * (to_y < from_y)) if below else (to_x, to_y + height / 2)
            axes.annotate(
                "", head, tail, arrowprops={"arrowstyle": "->", "color": "#555555", "shrinkA": 4, "shrinkB": 4}
            )
    metadata = {"Date": None} if ending == ".svg" else {"Software": None}  # the same file for the same lineage
    with matplotlib.rc_context({"svg.hashsalt": "lineage", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=120, metadata=metadata)


_EDGES = (
    ("data", "documents"), ("documents", "vocabulary"), ("documents", "examples"), ("vocabulary", "examples"),
    ("examples", "model"), ("parent", "model"), ("model", "evaluation"), ("baseline", "evaluation"),
    ("evaluation", "version"),
)  # fmt: skip


def _boxes(found: dict[str, Any]) -> dict[str, Box]:
    data, vocabulary, model, evaluation = (found[part] for part in ("data", "vocabulary", "model", "evaluation"))
    files = data["files"]
    if files == NOT_RECORDED:
        named = [NOT_RECORDED]
    else:
        named = [f"{pathlib.Path(file['file']).name[:22]} {file['sha256'][:8]}" for file in files[:3]]
        named += [f"... and {len(files) - 3:,} more"] if len(files) > 3 else []
    metrics = evaluation["metrics"]
    figures = [NOT_RECORDED]
    if metrics != NOT_RECORDED:
        names = [name for name in ("masked_lm_loss", "masked_lm_accuracy") if name in metrics] or list(metrics)[:2]
        figures = [f"{name.replace('_', ' ')} {metrics[name]:.4f}" for name in names]
    verdict = {True: "passed", False: "not passed"}.get(evaluation["blessed"], NOT_RECORDED)
    state = ["rolled back"] * found["rolled_back"] + ["its folder is gone"] * (not found["standing"])
    kind, sides, made, size = _of_task(found) if "task" in found else _of_pretraining(found)
    how = "taken" if vocabulary["taken_from"] else "learned"
    boxes: dict[str, Box] = {
        "data": (0, 1, "data", "files", "\n".join(named)),
        "documents": (1, 1, "data", kind, "\n".join(sides)),
        "vocabulary": (
            2, 0, "data", "vocabulary",
            f"{vocabulary['report'].get('size', '?')} tokens, {how}\nsha256 {vocabulary['sha256'][:12]}",
        ),
        "examples": (2, 1, "data", "examples", made),
        "model": (
            3, 1, "model", f"model {model['identity'][:8]}",
            f"{size}\n"
            f"{telling.trained(model, 16, ', ')}\ncode {found['code']['training']}",
        ),
        "evaluation": (4, 1, "judged", f"gate: {verdict}", "\n".join(figures)),
        "version": (
            5, 1, "served", f"version {found['version']}",
            "\n".join([*(f"label {label}" for label in found["labels"]), *state]),
        ),
    }  # fmt: skip
    if found["parent"]:
        parent = ", ".join(found["parent"]["versions"]) or found["parent"]["checkpoint"]
        boxes["parent"] = (3, 0, "model", "parent", "\n".join(textwrap.wrap(parent, 34)[:4]))
    if evaluation["baseline"]:
        boxes["baseline"] = (4, 0, "model", "baseline", f"version {evaluation['baseline']}")
    return boxes


def _of_pretraining(found: dict[str, Any]) -> tuple[str, list[str], str, str]:
    """What the boxes of the rows, their counts, the examples and the model say."""
    report = found["data"]["report"]
    sides = [f"{side} {report.get(f'documents_{side}', NOT_RECORDED)}" for side in ("train", "eval")]
    size = NOT_RECORDED
    if settings := found["settings"]:
        encoder, training = settings["encoder"], settings["training"]
        size = f"{encoder['num_layers']} x {encoder['hidden_size']}, {training['steps']:,} steps"
    return "documents", sides, f"{found['examples']['report'].get('examples', NOT_RECORDED)}", size


def _of_task(found: dict[str, Any]) -> tuple[str, list[str], str, str]:
    sides = [f"{side} {part['rows']:,}" for side, part in found["data"]["report"].items()]
    answers = found["data"]["answers"]
    known = answers if answers == NOT_RECORDED else f"{len(answers)} labels"
    return "rows", sides, f"{found['examples']['report']['rows']:,} rows\n{known}", found["task"]
