"""`bert predict`: a question to a served model, or a file of them."""

import contextlib
import json
import os
import pathlib
import shutil

import click

from pipeline import terminal
from pipeline.commands import finetune
from pipeline.finetuning import kinds
from preprocessing import storage
from preprocessing.errors import InputError, require
from preprocessing.tags import OUTSIDE

SECOND = "second"  # may be empty where there is a text beside it; see serving.signatures.base
LOCAL = "127.0.0.1:8500"
CONTEXT = "context"  # comes behind its question
LONGEST = 60  # characters that are shown of an answer


@click.command()
@click.argument("texts", nargs=-1)
@click.option(
    "--signature", help="serving_default, fill_mask, next_sentence, tokenize, ...  [default: serving_default]"
)
@click.option("--server", help=f"host:port of a server, by gRPC.  [default: {LOCAL}]")
@click.option("--rest", help="http://host:port of a server, by REST.")
@click.option("--model", "folder", help="An exported folder; no server is needed. With --input also one to export.")
@click.option("--input", "data", metavar="FILE", help="Rows, as `bert finetune` takes them, with or without labels.")
@click.option("--output", metavar="FILE", help="Gets a JSON object for each row of --input.  [default: the terminal]")
@finetune.task(help="What is asked of the rows, where the model answers several.")
@finetune.named
@finetune.columns
@click.option("--model-name", default="bert", show_default=True, help="Name of the model on the server.")
@click.option("--version", type=click.IntRange(1, 2**63 - 1), help="Version of the model; else the newest.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    texts, signature, server, rest, folder, data, output, model_name, version, timeout, as_json, columns, task, named
):
    """Ask a server, or an exported model, from the command line.

    A signature of two texts, as next_sentence or answer (question, context), takes its TEXTS in pairs. The model says
    which those are.

        bert predict --signature fill_mask 'Paris is the [MASK] of France.'

    A fine-tuned model is asked about a file of rows, each of which gets a JSON object, in order, with its line and id.

        bert predict --model served/bert --input rows.tsv --output answers.jsonl
    """
    if sum(target is not None for target in (server, rest, folder)) > 1:
        raise InputError("give one of --server, --rest and --model")
    if bool(texts) == (data is not None):
        raise InputError(f"give texts, or --input. Received: {'both' if texts else 'neither'}")
    if rest is not None and not rest.startswith(("http://", "https://")):
        rest = f"http://{rest}"
    target = next((given for given in (folder, rest, server) if given is not None), LOCAL)
    of_server = {"model": model_name, "version": version, "timeout": timeout}
    if data is not None:
        if signature is not None or as_json:
            raise InputError("--signature and --json are for texts: of --input each row's object is JSON")
        _answer_file(target, {"named": named, **of_server}, data, output, columns, task)
        return
    for name, value in {"output": output, "task": task, "named": named, **columns}.items():
        require(value is None, f"--{name} is for the rows of --input", value)
    signature = signature or "serving_default"

    from serving.client import Client
    from serving.protocol.errors import RequestError

    try:
        with Client(pathlib.Path(folder) if folder is not None else target, **of_server) as client:
            # Of a signature that is not there the server says so itself.
            names, _ = client.signatures().get(signature, (["text"], []))
            inputs = _inputs(signature, names, texts)
            # The bytes that were typed, whatever they are.
            outputs = client.predict(signature, **{name: [*map(os.fsencode, value)] for name, value in inputs.items()})
    except RequestError as error:
        raise InputError(f"{target}: {error.message} ({error.code.name})") from None
    if as_json:
        click.echo(json.dumps(_plain(outputs), ensure_ascii=False))
        return
    for line in _table(inputs, outputs):
        click.echo(line.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _answer_file(target, where, data, output, columns, task):
    """A JSON object for each row of a file."""
    if not storage.is_file(data):
        raise InputError(f"{data}: no such file")

    from pipeline.finetuning import asking, predicting
    from preprocessing.tasks.tables import Columns

    wanted = Columns(**columns, labelled=False)
    with asking.opened(target, **where) as served, _written(output) as file:
        kind = asking.kind_of(served, kinds.ALL, task)
        source = kind.source(data, wanted)
        click.echo(source.told, err=True)
        notes: list[str] = []
        with terminal.Progress("Asking", unit="rows") as progress:
            for found in predicting.objects(kind, source, served, progress.update, notes.append):
                click.echo(json.dumps(found, ensure_ascii=False), file)
        for note in notes:
            click.echo(note, err=True)


@contextlib.contextmanager
def _written(path):
    """A file that gets its name once it is whole; None, the terminal, without a path."""
    if path is None:
        yield None
        return
    scratch = pathlib.Path(f"{path}.{os.getpid()}.tmp")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            yield file
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _inputs(signature, names, texts):
    """The texts for each of the signature's inputs, in turn."""
    needed = sorted((name for name in names if name != SECOND or "text" not in names), key=CONTEXT.__eq__)
    if not needed:
        raise InputError(f"{signature} takes no texts")
    if len(texts) % len(needed):
        kind = {2: "pairs"}.get(len(needed), f"groups of {len(needed)}")
        raise InputError(f"{signature} takes texts in {kind} ({', '.join(needed)}). Received: {len(texts)}")
    inputs = {name: texts[start :: len(needed)] for start, name in enumerate(needed)}
    empty = [""] * (len(texts) // len(needed))
    return inputs | {name: empty for name in names if name not in needed}


def _plain(outputs):
    return {name: _text(array.tolist()) for name, array in outputs.items()}


def _text(nested):
    """Bytes as text, in lists of lists."""
    if isinstance(nested, list):
        return [_text(item) for item in nested]
    return nested.decode("utf-8", "replace") if isinstance(nested, bytes) else nested


def _table(inputs, outputs):
    """Lines for people: bars for candidates, rows for the rest."""
    if {"mask_count", "tokens", "scores"} <= outputs.keys():
        yield from _filled(inputs["text"], outputs)
    elif {"label", "labels", "probabilities"} <= outputs.keys():
        yield from _classified(inputs, outputs)
    elif {"answers", "scores", "no_answer"} <= outputs.keys():
        yield from _answered(inputs, outputs)
    elif {"words", "tags", "word_count", "entity_count"} <= outputs.keys():
        yield from _tagged(inputs["text"], outputs)
    elif "is_next" in outputs:
        for first, second, share in zip(inputs["first"], inputs["second"], outputs["is_next"], strict=True):
            yield f"{share:7.2%}  {first}  ->  {second}"
    elif {"ids", "tokens", "length"} <= outputs.keys():
        for row, text in enumerate(inputs["text"]):
            yield text
            ids = outputs["ids"][row]
            tokens = _text(outputs["tokens"][row, : outputs["length"][row]].tolist())
            widths = [max(len(token), len(str(number))) for token, number in zip(tokens, ids, strict=False)]
            yield "  " + " ".join(token.ljust(width) for token, width in zip(tokens, widths, strict=True))
            yield "  " + " ".join(str(number).ljust(width) for number, width in zip(ids, widths, strict=False))
    else:
        rows = len(next(iter(inputs.values())))
        for row in range(rows):
            yield str(next(iter(inputs.values()))[row])
            longest = max(map(len, outputs))
            for name, array in outputs.items():
                yield f"  {name.ljust(longest)}  {_summary(array[row])}"


def _tagged(texts, outputs):
    """The words of each row with their tags, but for O; and the entities."""
    for row, text in enumerate(texts):
        yield text
        count, entities = outputs["word_count"][row], outputs["entity_count"][row]
        words = zip(*(_text(outputs[name][row, :count].tolist()) for name in ("words", "tags")), strict=True)
        yield "  " + " ".join(word if tag == OUTSIDE else f"{word}/{tag}" for word, tag in words)
        names = ("entity_types", "entities", "entity_scores")
        found = list(zip(*(_text(outputs[name][row, :entities].tolist()) for name in names), strict=True))
        width = max((len(kind) for kind, _, _ in found), default=0)
        for kind, entity, score in found:
            yield f"  {kind.ljust(width)}  {score:6.2%}  {entity}"


def _classified(inputs, outputs, most=5):
    """The likeliest labels of each row."""
    for row, texts in enumerate(zip(*inputs.values(), strict=True)):
        yield "  |  ".join(texts)
        shares = outputs["probabilities"][row]
        order = (-shares).argsort()[:most]
        yield from _bars([outputs["labels"][row, place].decode() for place in order], shares[order])


def _answered(inputs, outputs, most=5):
    """The best spans of each context; the answer is none of them where there is none."""
    for row, question in enumerate(inputs["question"]):
        yield f"{question}  {_text(outputs['answer'][row]) or '(no answer)'}"
        texts = [_text(text) for text in outputs["answers"][row][:most] if text]
        shown = [text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in texts]
        if shown:
            yield from _bars(shown, outputs["scores"][row][: len(shown)])


def _bars(names, shares):
    width = min(shutil.get_terminal_size().columns, 100)
    longest = max(map(len, names))
    for name, share in zip(names, shares, strict=True):
        yield f"  {name.ljust(longest)}  {share:6.2%}  {'█' * round(share * (width - longest - 13))}".rstrip()


def _filled(texts, outputs):
    for row, text in enumerate(texts):
        yield text
        count = int(outputs["mask_count"][row])
        if not count:
            yield "  there is no [MASK] in it"
        for mask in range(count):
            if count > 1:
                yield f"  [MASK] {mask + 1}"
            yield from _bars([token.decode() for token in outputs["tokens"][row, mask]], outputs["scores"][row, mask])


def _summary(value):
    """A number or text as it is; of an array its shape and first values."""
    if getattr(value, "shape", ()) == ():
        return f"{value:.6g}" if getattr(value, "dtype", None) == "float32" else str(_text(value))
    first = [f"{item:.4f}" if isinstance(item, float) else str(item) for item in _text(value.ravel()[:6].tolist())]
    return f"{list(value.shape)}  {', '.join(first)}{', ...' if value.size > 6 else ''}"
