"""Checkpoints in every format that BERT comes in, read and written without loss, heads included.

encoder = load("uncased_L-12_H-768_A-12")              # google's, Hugging Face's, keras-hub's or ours: recognised
save_huggingface(encoder, "out", vocab="uncased_L-12_H-768_A-12/vocab.txt", lower_case=True)
"""

from model.checkpoints.comparing import largest_difference
from model.checkpoints.loading import (
    FORMATS,
    build,
    folder,
    load,
    lower_case,
    read,
    recognise,
    save,
    save_as,
    save_google,
    save_huggingface,
    sentences,
    tokenizer,
    vocab_file,
    write_sentences,
)
from model.checkpoints.task_file import read_task, write_task
from model.checkpoints.tokenizer_files import CheckpointTokenizer

__all__ = [
    "FORMATS",
    "CheckpointTokenizer",
    "build",
    "folder",
    "largest_difference",
    "load",
    "lower_case",
    "read",
    "read_task",
    "recognise",
    "save",
    "save_as",
    "save_google",
    "save_huggingface",
    "sentences",
    "tokenizer",
    "vocab_file",
    "write_sentences",
    "write_task",
]
