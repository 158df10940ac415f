"""Which documents are held out: a pure function of their content, so none stands on both sides, however often the
corpus is re-ordered, re-sharded or extended."""

from preprocessing.corpus.documents import Document

NAMES = ("train", "eval")


def is_in(document: Document, name: str, eval_share: float) -> bool:
    """Whether a document belongs to the split `name`; its id is a uniform hash of its content."""
    held_out = int.from_bytes(document.id[:8], "big") < eval_share * 2**64
    return name == NAMES[held_out]
