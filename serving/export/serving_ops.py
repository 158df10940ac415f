"""Which operations TensorFlow Serving can run.

`tensorflow_model_server` of version N has all core operations of TensorFlow N, and those of tf.text that its build
links: the target `//tensorflow_text:ops_lib` of the tf.text release named in its `workspace.bzl`. That is 2.12.1 for
TensorFlow Serving 2.14 to 2.19 and 2.20.0 for 2.20. In 2.12.1 that target holds neither the trimmers nor
`Utf8Binarize`.
"""

import pathlib

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from serving.signatures.int8 import OPERATION

_TEXT_2_12 = frozenset(
    {
        "CaseFoldUTF8",
        "FastBertNormalize",
        "FastWordpieceTokenizeWithOffsets",
        "FindSourceOffsets",
        "NormalizeUTF8",
        "NormalizeUTF8WithOffsetsMap",
        "RegexSplitWithOffsets",
        "TFText>ByteSplitByOffsets",
        "TFText>ByteSplitWithOffsets",
        "TFText>FastWordpieceDetokenize",
        "TFText>NgramsStringJoin",
        "TFText>WhitespaceTokenizeWithOffsetsV2",
        "UnicodeScriptTokenizeWithOffsets",
        "WhitespaceTokenizeWithOffsets",
        "WordpieceTokenizeWithOffsets",
    }
)
_TEXT_2_20 = _TEXT_2_12 | {"TFText>RoundRobinGenerateMasks", "TFText>RoundRobinTrim", "TFText>Utf8Binarize"}

# Linked operations outside TensorFlow's core, as far as an encoder may want them, by TensorFlow Serving version.
ALLOWED: dict[str, frozenset[str]] = {
    **dict.fromkeys(("2.16", "2.17", "2.18", "2.19"), _TEXT_2_12),
    "2.20": _TEXT_2_20,
}


def operations(folder: str | pathlib.Path) -> set[str]:
    """Names of all operations in a SavedModel, in its functions too."""
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((pathlib.Path(folder) / "saved_model.pb").read_bytes())
    names = set()
    for meta_graph in saved_model.meta_graphs:
        library = meta_graph.graph_def.library.function
        names |= {node.op for node in meta_graph.graph_def.node}
        names |= {node.op for function in library for node in function.node_def}
        names -= {function.signature.name for function in library}
    return names


def custom_operations(folder: str | pathlib.Path) -> set[str]:
    """Those of them that are not part of TensorFlow's core."""
    return {name for name in operations(folder) - {OPERATION} if not hasattr(tf.raw_ops, name)}


def refused_by(folder: str | pathlib.Path) -> dict[str, set[str]]:
    """Operations of a SavedModel that a version of TensorFlow Serving lacks, by version; empty if all have all."""
    custom = custom_operations(folder)
    return {version: custom - allowed for version, allowed in ALLOWED.items() if custom - allowed}
