"""From an encoder to a SavedModel that takes raw text.

    VERSION/
      saved_model.pb, variables/, fingerprint.pb    loadable by TensorFlow (with tf.text) and TensorFlow Serving alone
      assets/vocab.txt                              for readers; the graph carries its own copy
      assets.extra/export.json                      settings, signatures, sizes, load time
      assets.extra/golden_requests.json             requests with the answers of the Python path
      assets.extra/tf_serving_warmup_requests       what a server runs before it takes requests

An export is written under another name, answers its golden requests in a fresh process, and only then gets its name:
a folder that has the name is whole.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from model.encoder import BertEncoder
from model.encoder.smaller import WHOLE, Kept, smaller
from model.settings import TaskSettings
from preprocessing import storage
from preprocessing.errors import InputError, require
from preprocessing.tokenizer import BertTokenizer
from serving.engine.loaded_model import DESCRIPTION
from serving.export import golden, serving_ops, text_rules, warmup
from serving.export.models import Named, Part, read
from serving.settings import ExportSettings
from serving.signatures import ALL
from serving.signatures.base import Signature, TextEncoder

REPORT = DESCRIPTION
# Largest difference of any number between the Python path and the folder loaded elsewhere. bfloat16 has 8 bits, and the
# graph's optimizer fuses, and so rounds, in other places: 0.05 was seen in sums of four layers. The bounds that a
# signature names for its rounded outputs are asked besides.
TOLERANCE, TOLERANCE_ROUNDED = 1e-5, 0.2
# Of int8 they may be so many times as far: a last digit of float32 decides which of two whole numbers is nearest, and
# after some layers both paths have rounded otherwise. 0.053 was seen in vectors, where bfloat16 showed 0.018.
INT8_BOUNDS = 3
Report = Callable[[str], None]


def export(
    encoder: BertEncoder,
    vocab_path: str | os.PathLike,
    folder: str | os.PathLike,
    settings: ExportSettings | None = None,
    lower_case: bool = True,
    report: Report = lambda line: None,
    signatures: Sequence[Signature] = ALL,
    task: TaskSettings | None = None,
    kept: Kept = WHOLE,
) -> dict:
    """Writes a SavedModel into `folder`, which must not exist yet or be empty.

    Args:
        encoder: what answers.
        vocab_path: the encoder's vocabulary, one token a line.
        folder: becomes the SavedModel, only after that answered its golden requests.
        settings: see ExportSettings.
        lower_case: whether the vocabulary is an uncased one.
        report: gets a line per step.
        signatures: those that are wanted; the encoder's heads and layers decide which of them there are.
        task: what the numbers of a fine-tuned head mean.
        kept: of the encoder and its vocabulary, where not all is exported.

    Returns: what `assets.extra/export.json` holds: `signatures`, `left_out` (name: reason), `settings`, `lower_case`,
    `task`, `kept` (numbers of the `layers`, how many `tokens`; null: all), `models` (of several: each one's `task`,
    `signatures`, `weight_bytes` and, of those, `own_weight_bytes` that none before it has), `parameters`,
    `warmup_records`, `warmup_left_out`, `bytes`, `graph_bytes`, `custom_ops`, `load_seconds`, `first_answer_seconds`,
    `largest_difference`.

    Raises: InputError if the folder is taken, or if the SavedModel does not answer as the encoder does.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"the export folder must not exist yet. Received: {folder}")
    with _partial(folder.parent) as partial:
        tokenizer = BertTokenizer.from_vocab(vocab_path, lower_case)
        if kept.tokens is not None:
            tokenizer = tokenizer.with_tokens(kept.tokens)
        texts = TextEncoder(smaller(encoder, kept), tokenizer, settings or ExportSettings(), task)
        figures = _write([Part.of("", texts, signatures)], partial, report, kept)
        partial.rename(folder)
    return figures


def export_version(
    checkpoint: str | os.PathLike | Sequence[Named],
    base: str | os.PathLike,
    name: str = "bert",
    settings: ExportSettings | None = None,
    vocab_path: str | os.PathLike | None = None,
    lower_case: bool | None = None,
    report: Report = lambda line: None,
    signatures: Sequence[Signature] = ALL,
    kept: Kept = WHOLE,
) -> pathlib.Path:
    """Exports any checkpoint that `model.checkpoints.load` knows as `base/name/N`, N being the next free number; or
    several that share weights, which are then stored once.

    `settings`, `vocab_path` and `lower_case` are those of the (first) checkpoint where they are not given (see
    `serving.export.text_rules`); `kept` makes a smaller model of each.
    Returns the version folder. Raises InputError as `export` and `models.read`.
    """
    models = [Named(str(checkpoint))] if isinstance(checkpoint, (str, os.PathLike)) else checkpoint
    settings = settings or text_rules.settings_of(models[0].path, {}, report)
    # What TensorFlow Serving takes for a model's name in its paths.
    require(re.fullmatch(r"\w[\w.-]*", name) is not None, "name must be of A-Z a-z 0-9 . _ -", name)
    require(
        "://" not in str(base), "the output must be a local folder; copy it to a bucket when it is whole", str(base)
    )
    parts = read(models, settings, vocab_path, lower_case, signatures, report, kept)
    model = pathlib.Path(base) / name
    with _partial(model) as partial:
        _write(parts, partial, report, kept)
        while True:
            version = model / str(max(_versions(model), default=0) + 1)
            try:
                partial.rename(version)
            except OSError:
                if not version.exists():
                    raise
            else:
                return version


def verify(folder: str | os.PathLike) -> dict:
    """Loads an export in a fresh process, which imports only TensorFlow and tf.text, and compares its answers to the
    golden requests with those that the Python path gave.

    Returns: `custom_ops`, `load_seconds`, `first_answer_seconds`, `largest_difference`.

    Raises: InputError if it is no export, needs an operation that TensorFlow Serving lacks, does not load, or answers
    otherwise than the Python path.
    """
    folder = pathlib.Path(folder).absolute()
    for needed in ("saved_model.pb", golden.REQUESTS, REPORT):
        if not (folder / needed).is_file():
            raise InputError(f"{folder}: not an exported model, it has no {needed}")
    for version, operations in serving_ops.refused_by(folder).items():
        raise InputError(f"{folder}: TensorFlow Serving {version} lacks the operations {sorted(operations)}")
    answered = _answer_elsewhere(folder)
    stored = json.loads((folder / REPORT).read_text())["settings"]
    tolerance = {"rounding": TOLERANCE}
    if stored["weights"] == "int8":
        tolerance = {"numbers": INT8_BOUNDS * TOLERANCE_ROUNDED}
    elif stored["compute"] == "bfloat16":
        tolerance = {"numbers": TOLERANCE_ROUNDED}
    for output in answered["outputs"]:
        _check(folder, output, tolerance)
        _check(folder, output, output["bounds"])
    return {
        "custom_ops": sorted(serving_ops.custom_operations(folder)),
        "load_seconds": round(answered["load_seconds"], 3),
        "first_answer_seconds": round(answered["first_answer_seconds"], 3),
        "largest_difference": max(output["numbers"] for output in answered["outputs"]),
    }


def _check(folder, output, bounds):
    for measure, bound in bounds.items():
        if not output[measure] <= bound:
            raise InputError(
                f"{folder}: {output['signature_name']} must answer as the Python path does, within {bound:g}. "
                f"Received: a difference of {output[measure]:.3g} in {output['output']}, by {measure}"
            )


def _answer_elsewhere(folder):
    _holder, loaded_from = storage.without_glob(str(folder))
    process = subprocess.run(
        [sys.executable, "-I", golden.__file__, loaded_from],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        raise InputError(f"{folder}: the model does not load and answer in a fresh process: {(lines or ['?'])[-1]}")
    return json.loads(process.stdout.splitlines()[-1])


def _write(parts: Sequence[Part], folder, report, kept: Kept) -> dict:
    first = parts[0].texts
    tokenizer = first.tokenizer
    signatures = [(signature, part.texts) for part in parts for signature in part.signatures]
    report("tracing")
    functions = {signature.name: signature.function(texts).get_concrete_function() for signature, texts in signatures}
    named = [signature.name for signature, _ in signatures]
    require(len(functions) == len(named), "signatures must have names of their own", named)
    report("writing")
    module = tf.Module(name="bert")
    # Of a further model what its task does without, a pooler beside a tagger's head, is not stored.
    asked = {id(tensor) for function in functions.values() for tensor in function.captured_inputs}
    own = [[one for one in part.texts.model.own if part is parts[0] or id(one.handle) in asked] for part in parts]
    module.weights = [variable for variables in own for variable in variables]
    with tempfile.TemporaryDirectory() as staging:
        path = pathlib.Path(staging) / "vocab.txt"
        path.write_bytes("".join(f"{token}\n" for token in tokenizer.vocab).encode("utf-8"))
        module.vocabulary = tf.saved_model.Asset(str(path))
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(folder), signatures=functions, options=options)
    _strip_gradients(folder)

    figures = {
        "signatures": {signature.name: _described(signature, functions[signature.name]) for signature, _ in signatures},
        "left_out": {name: reason for part in parts for name, reason in part.left_out.items()},
        "settings": dataclasses.asdict(first.settings),
        "lower_case": tokenizer.lower_case,
        "added_tokens": list(tokenizer.added),
        "longest_word": tokenizer.longest_word,
        "task": _task(parts[0]),
        "kept": {
            "layers": None if kept.layers is None else list(kept.layers),
            "tokens": None if kept.tokens is None else len(kept.tokens),
        },
        "parameters": first.model.parameters
        if len(parts) == 1
        else sum(math.prod(variable.shape) for variable in module.weights),
    }
    if len(parts) > 1:
        figures["models"] = [
            {
                "checkpoint": part.path,
                "task": _task(part),
                "signatures": [signature.name for signature in part.signatures],
                "weight_bytes": _bytes(part.texts.model.variables),
                "own_weight_bytes": _bytes(variables),
            }
            for part, variables in zip(parts, own, strict=True)
        ]
    (folder / REPORT).parent.mkdir(exist_ok=True)
    (folder / REPORT).write_text(json.dumps(figures, indent=2))
    with _all_digits():
        golden_requests = [_golden(one, texts, request) for one, texts in signatures for request in one.golden(texts)]
    (folder / golden.REQUESTS).write_text(json.dumps(golden_requests, ensure_ascii=False))
    figures["warmup_records"], figures["warmup_left_out"] = warmup.write(folder, signatures)
    if figures["warmup_left_out"]:
        report(
            f"{figures['warmup_left_out']} warm-up requests are left out: a server runs {figures['warmup_records']}; "
            "give fewer lengths or batch sizes"
        )
    report("answering the golden requests in a fresh process")
    figures |= verify(folder)
    figures |= {
        "bytes": sum(path.stat().st_size for path in _loaded_files(folder)),
        "graph_bytes": (folder / "saved_model.pb").stat().st_size,
    }
    (folder / REPORT).write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _task(part: Part) -> dict | None:
    return dataclasses.asdict(part.texts.task) if part.texts.task else None


def _bytes(variables: Sequence[tf.Variable]) -> int:
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)


def _described(signature: Signature, function) -> dict:
    """`{"inputs": {"text": ["string", [None]]}, "outputs": ..., "row_count": ..., "other_counts": ...}`"""
    inputs = {spec.name: spec for spec in function.structured_input_signature[0]}
    sides = {"inputs": inputs, "outputs": function.structured_outputs}
    described = {
        side: {name: [spec.dtype.name, spec.shape.as_list()] for name, spec in specs.items()}
        for side, specs in sides.items()
    }
    return described | {"row_count": signature.row_count, "other_counts": dict(signature.other_counts)}


def _golden(signature: Signature, encoder: TextEncoder, request: dict[str, list]) -> dict:
    """A request in the column form of TensorFlow Serving's REST API, with the outputs of the Python path and, where
    matrices are rounded, the bounds of their differences."""
    outputs, bounds = signature.answered(encoder, request), {}
    if encoder.settings.rounds:
        times = INT8_BOUNDS if encoder.settings.weights == "int8" else 1
        rounded = {name: bound for name, bound in signature.rounded.items() if bound and name in outputs}
        bounds = {name: {key: times * value for key, value in bound.items()} for name, bound in rounded.items()}
        outputs = {name: value for name, value in outputs.items() if signature.rounded.get(name, {}) is not None}
    return {
        "signature_name": signature.name,
        "inputs": {name: golden.encoded(values) for name, values in request.items()},
        "outputs": {name: golden.encoded(value.numpy().tolist()) for name, value in outputs.items()},
        "bounds": bounds,
    }


@contextlib.contextmanager
def _all_digits():
    """On a GPU TensorFlow rounds float32 factors of products to TF32, 11 of 24 bits, unless it is told not to."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _loaded_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """What a server reads before it can answer."""
    return [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "assets.extra"]


def _strip_gradients(folder: pathlib.Path) -> None:
    """Takes the names of training's gradient functions off the graph's nodes: a loader would warn of each."""
    path = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString(path.read_bytes())
    for function in saved_model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.attr.pop("_gradient_op_type", None)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))


def _partial(parent: pathlib.Path):
    """A new folder in `parent`, removed if it still has its name at the end. Its name is none of a version."""
    return storage.unfinished(parent, ".export-")


def _versions(model: pathlib.Path) -> list[int]:
    return [int(path.name) for path in model.iterdir() if path.name.isdecimal()]
