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

import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from model import checkpoints, formats
from model.encoder import BertEncoder
from preprocessing import outputs
from preprocessing.errors import InputError, require
from preprocessing.tokenizer import BertTokenizer
from serving import golden, serving_ops, warmup
from serving.settings import ExportSettings
from serving.signatures import INPUTS, Signatures

REPORT = "assets.extra/export.json"
# Largest difference between the Python path and the folder loaded elsewhere. bfloat16 has 8 bits, and the graph's
# optimizer fuses, and so rounds, in other places: 0.05 was seen in sums of four layers.
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.2}

GOLDEN_TEXTS = (
    "Paris is the capital of France.",
    "",
    " \t\n",
    "[CLS] [SEP] [PAD]",
    "Zoë's naïve café, 東京 und Übergröße: 1,234.5 % of unbelievable internationalization; isn't it? ",
)
GOLDEN_MASKED = ("Paris is the [MASK] of France.", "No mask here.", "[MASK] [MASK]ing the other one[MASK]")
Report = Callable[[str], None]


def export(
    encoder: BertEncoder,
    vocab_path: str | os.PathLike,
    folder: str | os.PathLike,
    settings: ExportSettings | None = None,
    lower_case: bool = True,
    report: Report = lambda line: None,
) -> dict:
    """Writes a SavedModel into `folder`, which must not exist yet or be empty.

    Args:
        encoder: its heads decide which signatures there are.
        vocab_path: the encoder's vocabulary, one token a line.
        folder: becomes the SavedModel, only after that answered its golden requests.
        settings: see ExportSettings.
        lower_case: whether the vocabulary is an uncased one.
        report: gets a line per step.

    Returns: what `assets.extra/export.json` holds: `signatures`, `left_out` (name: reason), `settings`, `lower_case`,
    `parameters`, `bytes`, `graph_bytes`, `custom_ops`, `load_seconds`, `first_answer_seconds`, `largest_difference`.

    Raises: InputError if the folder is taken, or if the SavedModel does not answer as the encoder does.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"the export folder must not exist yet. Received: {folder}")
    with _partial(folder.parent) as partial:
        figures = _write(encoder, vocab_path, partial, settings or ExportSettings(), lower_case, report)
        partial.rename(folder)
    return figures


def export_version(
    checkpoint: str | os.PathLike,
    base: str | os.PathLike,
    name: str = "bert",
    settings: ExportSettings | None = None,
    vocab_path: str | os.PathLike | None = None,
    lower_case: bool | None = None,
    report: Report = lambda line: None,
) -> pathlib.Path:
    """Exports any checkpoint that `model.checkpoints.load` knows as `base/name/N`, N being the next free number.

    `vocab_path` and `lower_case` are those of the checkpoint where it has them; without either, vocabularies are taken
    to be uncased. Returns the version folder. Raises InputError as `export`, and for a checkpoint without vocabulary.
    """
    vocab_path = vocab_path or checkpoints.vocab_file(checkpoint)
    if vocab_path is None:
        raise InputError(f"{checkpoint}: no vocabulary beside the checkpoint; name one with --vocab")
    if lower_case is None:
        lower_case = checkpoints.lower_case(checkpoint)
    settings = settings or ExportSettings()
    # What TensorFlow Serving takes for a model's name in its paths.
    require(re.fullmatch(r"\w[\w.-]*", name) is not None, "name must be of A-Z a-z 0-9 . _ -", name)
    require(
        "://" not in str(base), "the output must be a local folder; copy it to a bucket when it is whole", str(base)
    )
    report(f"loading {checkpoint}")
    read = checkpoints.read(checkpoint)
    if settings.embedding == "pooler" and not any(formats.part_of(name) == formats.POOLER for name in read.arrays):
        raise InputError(f'{checkpoint}: has no pooler; export it with the embedding "mean"')
    encoder = checkpoints.build(read, report=report)
    model = pathlib.Path(base) / name
    with _partial(model) as partial:
        _write(encoder, vocab_path, partial, settings, lower_case is not False, report)
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
    compute = json.loads((folder / REPORT).read_text())["settings"]["compute"]
    worst = max(answered["requests"], key=lambda request: request["difference"])
    if not worst["difference"] <= TOLERANCE[compute]:
        raise InputError(
            f"{folder}: {worst['signature_name']} must answer as the Python path does, within {TOLERANCE[compute]:g}. "
            f"Received: a difference of {worst['difference']:.3g} in {worst['output']}"
        )
    return {
        "custom_ops": sorted(serving_ops.custom_operations(folder)),
        "load_seconds": round(answered["load_seconds"], 3),
        "first_answer_seconds": round(answered["first_answer_seconds"], 3),
        "largest_difference": worst["difference"],
    }


def _answer_elsewhere(folder):
    process = subprocess.run(
        [sys.executable, "-I", golden.__file__, str(folder)],
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


def _write(encoder, vocab_path, folder, settings, lower_case, report) -> dict:
    vocab_path = pathlib.Path(vocab_path)
    tokenizer = BertTokenizer.from_vocab(str(vocab_path), lower_case=lower_case)
    signatures = Signatures(encoder, tokenizer, settings)
    report("tracing")
    functions = {
        name: tf.function(method, input_signature=INPUTS[name], autograph=False).get_concrete_function()
        for name, method in signatures.methods().items()
    }
    report("writing")
    module = tf.Module(name="bert")
    module.weights = signatures.variables
    with tempfile.TemporaryDirectory() as staging:
        # Whatever the vocabulary file is called, the export's is vocab.txt.
        module.vocabulary = tf.saved_model.Asset(str(shutil.copy(vocab_path, pathlib.Path(staging) / "vocab.txt")))
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(folder), signatures=functions, options=options)
    _strip_gradients(folder)

    figures = {
        "signatures": {name: _described(function) for name, function in functions.items()},
        "left_out": signatures.left_out(),
        "settings": dataclasses.asdict(settings),
        "lower_case": lower_case,
        "parameters": sum(math.prod(variable.shape) for variable in signatures.variables),
    }
    (folder / REPORT).parent.mkdir(exist_ok=True)
    (folder / REPORT).write_text(json.dumps(figures, indent=2))
    (folder / golden.REQUESTS).write_text(json.dumps(_golden_requests(signatures), ensure_ascii=False))
    inputs = {name: [spec.name for spec in INPUTS[name]] for name in functions}
    figures["warmup_records"] = warmup.write(folder, inputs, tokenizer, signatures.lengths, settings)
    report("answering the golden requests in a fresh process")
    figures |= verify(folder)
    figures |= {
        "bytes": sum(path.stat().st_size for path in _loaded_files(folder)),
        "graph_bytes": (folder / "saved_model.pb").stat().st_size,
    }
    (folder / REPORT).write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _described(function) -> dict:
    """`{"inputs": {"text": ["string", [None]]}, "outputs": ...}` of a concrete function."""
    inputs = {spec.name: spec for spec in function.structured_input_signature[0]}
    sides = {"inputs": inputs, "outputs": function.structured_outputs}
    return {
        side: {name: [spec.dtype.name, spec.shape.as_list()] for name, spec in specs.items()}
        for side, specs in sides.items()
    }


def _golden_requests(signatures: Signatures) -> list[dict]:
    """Requests in the column form of TensorFlow Serving's REST API, with the outputs of the Python path."""
    texts, pair = list(GOLDEN_TEXTS), {"text": [GOLDEN_TEXTS[0]], "second": ["It lies on the Seine."]}
    asked: list[tuple[str, dict]] = [("serving_default", {"text": [text]}) for text in texts[:2]]
    for name in signatures.methods():
        names = [spec.name for spec in INPUTS[name]]
        if name == "evaluate":
            asked.append((name, {"examples": [_example(signatures, text) for text in texts]}))
        elif name == "fill_mask":
            asked.append((name, {"text": list(GOLDEN_MASKED)}))
        elif name == "next_sentence":
            asked.append((name, {"first": texts, "second": texts[::-1]}))
        elif names == ["text"]:
            asked.append((name, {"text": texts}))
        else:  # large outputs: one row
            asked.append((name, pair))
    requests = []
    for name, inputs in asked:
        outputs = getattr(signatures, name)(*(tf.constant(values) for values in inputs.values()))
        if name == "fill_mask" and signatures.settings.compute == "bfloat16":
            # Rounding may change the places of candidates that are about as likely.
            outputs = {key: value for key, value in outputs.items() if value.dtype != tf.string}
        outputs = {key: value.numpy().tolist() for key, value in outputs.items()}
        requests.append(
            {
                "signature_name": name,
                "inputs": {key: golden.encoded(values) for key, values in inputs.items()},
                "outputs": {key: golden.encoded(values) for key, values in outputs.items()},
            }
        )
    return requests


def _example(signatures: Signatures, text: str) -> bytes:
    """A serialized masked example whose prediction is the first token itself."""
    tokenized = signatures.tokenize(tf.constant([text]))
    ids = tokenized["ids"][0, : int(tokenized["length"][0])].numpy().tolist()
    return warmup.example(ids, ids[1])


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
    return outputs.unfinished(parent, ".export-")


def _versions(model: pathlib.Path) -> list[int]:
    return [int(path.name) for path in model.iterdir() if path.name.isdecimal()]
