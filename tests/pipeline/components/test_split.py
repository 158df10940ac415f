import hashlib

from pipeline.components import split
from preprocessing.corpus.documents import Document

DOCUMENTS = [Document(hashlib.blake2b(str(i).encode(), digest_size=16).digest(), ()) for i in range(20_000)]


def test_every_document_is_on_one_side_and_the_share_is_kept():
    held_out = [split.is_in(document, "eval", 0.1) for document in DOCUMENTS]
    assert held_out == [not split.is_in(document, "train", 0.1) for document in DOCUMENTS]
    assert abs(sum(held_out) / len(held_out) - 0.1) < 0.01


def test_a_larger_share_keeps_what_was_held_out():
    for document in DOCUMENTS[:1000]:
        assert split.is_in(document, "eval", 0.1) <= split.is_in(document, "eval", 0.3)
