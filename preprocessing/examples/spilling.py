"""Documents to token ids, kept in temporary files: each is cut into slots, by a hash of the documents' ids.

Only references leave this step, with a row of figures for each document, so that no runner has to hold the tokens.
"""

import functools
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindows

from preprocessing.beam import worker_exit
from preprocessing.beam.progress import WorkerProgress
from preprocessing.corpus import readers, reading, reports
from preprocessing.corpus.documents import ID_TYPE, Document, make_document
from preprocessing.examples import counter_random, token_store
from preprocessing.examples.token_store import TokenizedDocuments
from preprocessing.settings import CorpusSettings, ExampleSettings

SLOTS = 1024  # fixed, since they decide which documents meet in a pool

# These only decide how the work is cut.
_BUCKETS = 64  # of slots, that are looked at together
_TEXT_BATCH_BYTES = 2_000_000
_SPILL_TOKENS = 8_000_000

REPORTS = -1  # key of the reports of chunks, beside those of the buckets
ROW = np.dtype([("id", ID_TYPE), ("slot", "<u2"), ("sentences", "<i4"), ("tokens", "<i4"), ("unknown", "<i4")])
_OFFSETS = np.dtype("<i8")


class Spill(beam.PTransform):
    """Documents (or files, where `corpus` names them) -> (bucket, (name of a temporary file, packed `ROW`s of the
    documents in it that belong to the bucket)), and with files (REPORTS, ChunkReport).

    Documents may come several times; those without a token have a row, but are not in the file.
    """

    def __init__(
        self,
        settings: ExampleSettings,
        vocab_path: str,
        folder: str,
        corpus_settings: CorpusSettings | None = None,
        progress_folder: str | None = None,
    ):
        super().__init__()
        self._corpus_settings = corpus_settings
        arguments = settings, vocab_path, folder, progress_folder
        self._spill = _SpillFiles(*arguments, corpus_settings) if corpus_settings else _SpillDocuments(*arguments)

    def expand(self, source):
        if self._corpus_settings:
            source = source | "Chunks" >> reading.Chunks(self._corpus_settings)
        return source | "Tokenize" >> beam.ParDo(self._spill).with_output_types(tuple[int, Any])


@functools.lru_cache(maxsize=2)
def load_tokenizer(path: str, lower_case: bool):
    # Imported here: TensorFlow takes seconds, which the launching process need not spend.
    from preprocessing.tokenizer import BertTokenizer

    worker_exit.end_at_once()
    return BertTokenizer.from_vocab(path, lower_case=lower_case)


def tokenize_documents(documents: list[Document], tokenizer) -> TokenizedDocuments:
    """Documents as token ids; sentences without a token are left out."""
    owners = np.repeat(np.arange(len(documents)), [len(document.sentences) for document in documents])
    ragged = tokenizer.tokenize([sentence for document in documents for sentence in document.sentences])
    lengths = ragged.row_lengths().numpy().astype(np.int32)
    owners = owners[lengths > 0]
    counts = np.bincount(owners, minlength=len(documents)).astype(np.int32)
    ids = np.frombuffer(b"".join(document.id for document in documents), ID_TYPE)
    return TokenizedDocuments(ids, counts, lengths[lengths > 0], ragged.values.numpy())


class _SpillDocuments(beam.DoFn):
    """Documents -> as `Spill` has it."""

    def __init__(self, settings, vocab_path, folder, progress_folder=None):
        self._settings, self._vocab_path, self._folder = settings, vocab_path, folder
        self._progress = WorkerProgress(progress_folder)

    def start_bundle(self):
        self._texts, self._text_bytes = [], 0
        self._tokenized, self._tokens, self._rows = [], 0, []

    def process(self, document):
        self.add(document)
        if self._tokens >= _SPILL_TOKENS:
            yield from self.spill()

    def finish_bundle(self):
        for element in self.spill():
            yield GlobalWindows.windowed_value(element)

    def add(self, document: Document) -> None:
        self._texts.append(document)
        self._text_bytes += sum(map(len, document.sentences))
        if self._text_bytes >= _TEXT_BATCH_BYTES:
            self._tokenize()

    def spill(self) -> Iterator[tuple[int, tuple[str, bytes]]]:
        """Sorts what has been added by slot, and writes it to a file of its own: a bundle that is tried again does not
        touch what an earlier attempt wrote."""
        self._tokenize()
        if not self._rows:
            return
        rows = np.concatenate(self._rows)
        order = np.argsort(rows["slot"], kind="stable")
        path = FileSystems.join(self._folder, f"tokens-{uuid.uuid4().hex}")
        kept = order[rows["tokens"][order] > 0]
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
            write_slots(handle, token_store.merge(self._tokenized, kept), rows["slot"][kept])
        self._tokenized, self._tokens, self._rows = [], 0, []
        rows = rows[order]
        ends = np.searchsorted(rows["slot"], np.arange(1, _BUCKETS + 1) * (SLOTS // _BUCKETS))
        start = 0
        for bucket, end in enumerate(ends.tolist()):
            if end > start:
                yield bucket, (path, rows[start:end].tobytes())
            start = end

    def _tokenize(self):
        if not self._texts:
            return
        tokenizer = load_tokenizer(self._vocab_path, self._settings.lower_case)
        found = tokenize_documents(self._texts, tokenizer)
        rows = np.zeros(len(found.ids), ROW)
        rows["id"], rows["slot"] = found.ids, slot_of(found.ids)
        rows["sentences"], rows["tokens"] = found.sentence_counts, found.token_counts()
        is_unknown = found.tokens == tokenizer.unk_id
        if is_unknown.any():
            ends = np.cumsum(rows["tokens"], dtype=np.int64)
            before = np.concatenate([[0], np.cumsum(is_unknown)])
            rows["unknown"] = before[ends] - before[ends - rows["tokens"]]
        self._progress.add(documents=len(found.ids), tokens=len(found.tokens))
        self._tokenized.append(found)
        self._rows.append(rows)
        self._tokens += len(found.tokens)
        self._texts, self._text_bytes = [], 0


class _SpillFiles(_SpillDocuments):
    """Chunks -> as `Spill` has it."""

    def __init__(self, settings, vocab_path, folder, progress_folder, corpus_settings):
        super().__init__(settings, vocab_path, folder, progress_folder)
        self._corpus_settings = corpus_settings

    def process(self, numbered):
        for chunk in numbered[1]:
            report = reports.ChunkReport(chunk)
            for text in readers.read_texts(
                chunk, self._corpus_settings, report.tally, report.set_aside, report.notes.append
            ):
                self.add(make_document(text, chunk.format, self._corpus_settings))
                if self._tokens >= _SPILL_TOKENS:
                    yield from self.spill()
            yield REPORTS, report


def slot_of(ids, splits: int = 1) -> np.ndarray:
    """Slot of each document id, [D]; among SLOTS * splits finer ones, which divide each slot."""
    keys = counter_random.document_keys(ids, 0, 0, "slot")
    slots, rest = (keys % np.uint64(SLOTS)).astype(np.int64), keys // np.uint64(SLOTS)
    return slots * splits + (rest % np.uint64(splits)).astype(np.int64)


def write_slots(handle, documents: TokenizedDocuments, slots, count: int = SLOTS) -> None:
    """Documents sorted by `slots` [D]: the offsets of the `count` slots, [count + 1], then each slot's documents."""
    sizes = np.zeros(count, _OFFSETS)
    parts = []
    for slot, part in documents.runs(slots):
        parts.append(part.to_bytes())
        sizes[slot] = len(parts[-1])
    offsets = (count + 1) * _OFFSETS.itemsize + np.concatenate([[0], np.cumsum(sizes)])
    handle.write(offsets.astype(_OFFSETS).tobytes())
    for data in parts:
        handle.write(data)


def read_slots(path: str, slots, count: int = SLOTS) -> Iterator[TokenizedDocuments]:
    """The documents of the slots (ascending) in a file of `count` slots. Neighbouring slots are read at once."""
    slots = np.asarray(slots)
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
        offsets = np.frombuffer(handle.read((count + 1) * _OFFSETS.itemsize), _OFFSETS)
        for run in np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1):
            start, end = int(offsets[run[0]]), int(offsets[run[-1] + 1])
            if end > start:
                handle.seek(start)
                yield from token_store.from_bytes(handle.read(end - start))
