"""A model small enough to build in a moment, with four layers, every head and a vocabulary of its own."""

import functools
import pathlib

import keras
import numpy as np

from model.encoder import BertEncoder
from model.encoder.heads import CLASSIFIER, PRETRAINING, SPAN, TAGGER
from model.settings import EncoderSettings, TaggingSettings
from preprocessing import vocab_file
from serving.settings import ExportSettings

WORDS = "paris is the capital of france it lies on a river run runner no mask here , . ? ! é ##s ##ning ##er 東 京"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
EXPORT = ExportSettings(lengths=(8, 16, 48), top_k=3, warmup_lengths=(8, 48), warmup_batches=(1, 2))

EVERY_HEAD = (*PRETRAINING, CLASSIFIER.with_labels(3), SPAN)
TAGGING = TaggingSettings(("B-LOC", "B-PER", "I-LOC", "I-PER", "O"))


@functools.cache
def encoder(heads=EVERY_HEAD, layers=4) -> BertEncoder:
    keras.utils.set_random_seed(7)
    # A large initializer: differences would be too small to see otherwise.
    settings = EncoderSettings(len(VOCAB), 16, layers, 2, 32, max_positions=48, initializer_range=0.5)
    small = BertEncoder(settings, heads)
    for variable in small.variables:
        if len(variable.shape) == 1:
            variable.assign(variable + np.random.default_rng(3).normal(0, 0.2, variable.shape))
    return small


def tagger() -> BertEncoder:
    return encoder((TAGGER.with_labels(len(TAGGING.labels)),), 2)


# Whatever a text may be: ordinary, empty, blank, like special tokens, too long, not UTF-8, of signs that vanish.
TEXTS = [
    "Paris is the capital of France.",
    "",
    " \t\n ",
    "[CLS] [SEP] [PAD]",
    "run" * 300,
    "the " * 100,
    "It lies on a river, runnings 東京!",
    b"no\xff\xfe mask\xc3 here",
    "\x00\u200b\ufffd",
]


def write_vocab(folder: pathlib.Path, name: str = "vocab.txt") -> pathlib.Path:
    path = folder / name
    vocab_file.save(VOCAB, path)
    return path
