"""A document: its sentences and the hash of its text."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from preprocessing.corpus import sentences
from preprocessing.settings import CorpusSettings

ID_BYTES = 16
ID_TYPE = np.dtype((np.void, ID_BYTES))


class Document(NamedTuple):
    """`id`: hash of the text, 16 bytes."""

    id: bytes
    sentences: Sequence[str]


def digest(text: str) -> bytes:
    """The id of the document of that text."""
    return hashlib.blake2b(text.encode(), digest_size=ID_BYTES).digest()


def make_document(text: str, format_: str, settings: CorpusSettings) -> Document:
    """The document of a text that `readers.read_texts` gave, its sentences as they stand or found by rules."""
    found = sentences.given(text) if format_ == "sentences" else sentences.split(text, settings.language)
    return Document(digest(text), tuple(found))
