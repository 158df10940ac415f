"""What a run reads and how it turns text into examples. Frozen, validated; written beside the artifacts."""

import dataclasses
from typing import Literal

from preprocessing.errors import require, require_one_of

Format = Literal["auto", "sentences", "paragraphs", "document", "jsonl", "parquet", "tfrecord"]
Masking = Literal["token", "whole-word", "ngram", "phrases", "none"]
Pairs = Literal["next-sentence", "sentence-order", "none"]
Compression = Literal["none", "gzip"]
SPAN = "{SPAN}"  # in an input: the number of a span of data
Names = Literal["google", "model-garden"]


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """Where the text is and how it is cut into documents and sentences."""

    input: tuple[str, ...] = ()  # files, folders or globs, on any filesystem that Beam reads; SPAN: see corpus.spans
    format: Format = "auto"  # "auto" goes by content and name; plain text is "paragraphs"
    text_field: str = "text"  # JSONL field, Parquet column or tf.Example feature
    language: str = "en"  # ISO 639-1, for the sentence splitter
    max_line_bytes: int = 10_000_000  # longer lines are set aside
    max_document_bytes: int = 10_000_000  # longer documents are split, and counted
    max_bad_share: float = 0.01  # of the lines, and of their bytes; above it the run stops
    near_duplicates: float | None = None  # documents as alike as this, 0 to 1, to an earlier one are left out
    window: int = 1  # of data in spans, so many of the newest
    newest_span: int | None = None  # the last of them; None: the newest that is there

    def __post_init__(self):
        require(self.window > 0, "window must be positive", self.window)
        require(self.max_line_bytes > 0, "max_line_bytes must be positive", self.max_line_bytes)
        require(self.max_document_bytes > 0, "max_document_bytes must be positive", self.max_document_bytes)
        require_one_of(Format, "format", self.format)
        near = self.near_duplicates
        require(near is None or 0 < near <= 1, "near_duplicates must be above 0 and at most 1", near)
        require(0 <= self.max_bad_share <= 1, "max_bad_share must be between 0 and 1", self.max_bad_share)


@dataclasses.dataclass(frozen=True)
class VocabularySettings:
    """WordPiece vocabulary: learned, or taken from a file as it is, for runs whose models are to be compared."""

    size: int = 30_522  # to learn; a file has its own
    lower_case: bool = True
    file: str | None = None  # a `vocab.txt`
    max_unknown_increase: float = 0.01  # of data in spans: of the share of [UNK], since the first that met it

    def __post_init__(self):
        require(self.size > 5, "the vocabulary size must exceed its 5 special tokens", self.size)


@dataclasses.dataclass(frozen=True)
class ExampleSettings:
    """Masked-pair generation; defaults are google-research/bert's `create_pretraining_data.py`.

    masking: `token` (BERT), `whole-word` (all pieces of a word together), `ngram` (one to three whole words together),
    `phrases` (ERNIE: those of a list whole, other words whole), `none` (stored unmasked, for `masking.mask_batch` at
    training time). pairs: `next-sentence` (BERT), `sentence-order` (ALBERT: label 1 = the two halves are swapped),
    `none` (RoBERTa: sentences of one document packed to the full length, one segment, label 0).
    """

    max_seq_length: int = 128
    max_predictions: int = 20
    dupe_factor: int = 10
    masked_lm_prob: float = 0.15
    short_seq_prob: float = 0.1
    masking: Masking = "token"
    phrases: str | None = None  # of masking `phrases`: their list, a phrase a line
    pairs: Pairs = "next-sentence"
    lower_case: bool = True
    seed: int = 12345
    names: Names = "google"  # or TF Model Garden's feature names

    def __post_init__(self):
        require(self.max_seq_length >= 5, "max_seq_length must be at least 5", self.max_seq_length)
        require(self.max_predictions > 0, "max_predictions must be positive", self.max_predictions)
        require(self.dupe_factor > 0, "dupe_factor must be positive", self.dupe_factor)
        require(0 < self.masked_lm_prob <= 1, "masked_lm_prob must be in (0, 1]", self.masked_lm_prob)
        require(0 <= self.short_seq_prob <= 1, "short_seq_prob must be between 0 and 1", self.short_seq_prob)
        for name, choices in (("masking", Masking), ("pairs", Pairs), ("names", Names)):
            require_one_of(choices, name, getattr(self, name))
        require_phrases(self.masking, self.phrases)


def require_phrases(masking: str | None, phrases: str | None) -> None:
    """Raises InputError unless a list of phrases is given where they are masked, and only there."""
    require((masking == "phrases") == bool(phrases), "masking phrases and a list of phrases need each other",
            {"masking": masking, "phrases": phrases})  # fmt: skip
