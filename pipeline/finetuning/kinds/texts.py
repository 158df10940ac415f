"""What kinds share that judge a text or a pair, a row of a table."""

from collections.abc import Iterator

import numpy as np

from preprocessing.errors import InputError, require


def added(counts: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Their sum; those of nothing yet are empty."""
    return counts + others if counts.size and others.size else counts if counts.size else others


def row() -> type:
    from preprocessing.tasks.tables import Row

    return Row


def source(path, columns):
    """A table of rows with one label."""
    from preprocessing.tasks.tables import Table

    require(columns.separator is None, "--separator is for --task multi-label", columns.separator)
    return Table(path, columns)


def prepare(train, dev, tokenizer, folder, options, progress, labelling, apart=False, unlabelled=False):
    from preprocessing.tasks import examples

    if train.pair and options.long == "windows":
        raise InputError("--long windows is for single texts, not for pairs: choose cut or head-tail")
    return examples.prepare(
        train,
        dev,
        tokenizer,
        folder,
        max_seq_length=options.max_seq_length,
        long=options.long or "cut",
        labelling=labelling,
        apart=apart,
        unlabelled=unlabelled,
        progress=progress,
    )


def settings(train, options) -> dict:
    """How its texts are made, as ClassificationSettings has it."""
    how = {"max_seq_length": options.max_seq_length, "long": options.long, "pooling": options.pooling}
    return {"pair": train.pair, **how}


def told(prepared, options) -> Iterator[str]:
    for split, name in ((prepared.train, "train"), (prepared.dev, "dev")):
        share, windows = split.cut / split.texts, options.long == "windows"
        seen = f"longer than {options.max_seq_length} tokens: {split.rows:,} windows" if windows else (
            f"cut at {options.max_seq_length} tokens"
        )  # fmt: skip
        yield f"{name}: {split.texts:,} rows, {share:.1%} {seen}"


def classes(prepared) -> str:
    """The labels, the commonest first, with their rows."""
    shown = sorted(zip(prepared.train.counts, prepared.labels, strict=True), key=lambda pair: -pair[0])
    return ", ".join(f"{label} {count:,}" for count, label in shown[:6]) + (", ..." if len(shown) > 6 else "")


def inputs(signature, rows):
    first = [row.text for row in rows]
    if not signature.endswith("_pair"):
        return {"text": first}
    return {"first": first, "second": [row.second or "" for row in rows]}


def size(row) -> int:
    return len(row.text) + len(row.second or "")


def text(row) -> str:
    return row.text if row.second is None else f"{row.text} ||| {row.second}"


def sections(prepared, each) -> Iterator[str]:
    """The labels with their F1, the worst first."""
    yield from ("## Classes", "", "| class | F1 on dev | rows of train | rows of dev |", "|---|---|---|---|")
    counts = zip(prepared.labels, prepared.train.counts, prepared.dev.counts, strict=True)
    for label, of_train, of_dev in sorted(counts, key=lambda row: each[row[0]]):
        yield f"| {' '.join(label.split()).replace('|', chr(92) + '|')} | {each[label]:.4f} | {of_train} | {of_dev} |"
    yield ""


def lines(each, rows) -> Iterator[str]:
    """The labels' F1 for people; `rows` of each."""
    width = max(map(len, each), default=0)
    for (label, value), count in zip(each.items(), rows, strict=False):
        yield f"  {label.ljust(width)}  F1 {value:.4f}  {count:,.0f} rows"
