"""Signatures as GetModelMetadata tells them, over gRPC and REST."""

from tensorflow_serving.apis import get_model_metadata_pb2

METADATA_FIELD = "signature_def"


def signature_def_map(model):
    """`SignatureDefMap` of a loaded model."""
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in model.signature_defs.items():
        found.signature_def[name].CopyFrom(definition)
    return found


def no_examples(method: str) -> str:
    return (
        f"{method} takes tf.Examples for signatures of classification or regression, which models that take raw text "
        "do not have; use Predict"
    )
