"""Beam transforms from documents to word counts and to masked examples.

How a corpus becomes examples without being held: workers tokenize documents and write the tokens to temporary files,
cut into slots by a hash of the document's id; Beam groups only references. A plan then deals the slots into pools, anew
for each copy, and each pool is read back by whoever makes its examples: random next sentences come from other documents
of the pool. Slots, pools and every random number depend on the documents alone, so the set of examples is
byte-identical for any workers, order, sharding and runner.
"""

import atexit
import collections
import contextlib
import dataclasses
import functools
import gzip
import itertools
import math
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsSingleton
from apache_beam.transforms.combiners import ToListCombineFn
from apache_beam.transforms.window import GlobalWindows

from preprocessing import counter_random, features, tfrecord, token_store
from preprocessing.beam_runner import NAMESPACE
from preprocessing.corpus import Document
from preprocessing.errors import InputError
from preprocessing.example_maker import ExampleMaker
from preprocessing.progress import WorkerProgress
from preprocessing.settings import Compression, ExampleSettings
from preprocessing.token_store import ID_TYPE, Pool, TokenizedDocuments

# Fixed, since they decide which documents meet in a pool. A pool of 8 M tokens (some 35 MB of English) takes 32 MB.
SLOTS = 1024
POOL_TOKENS = 8_000_000

# These only decide how the work is cut.
_TEXT_BATCH_BYTES = 2_000_000
_SPILL_TOKENS = 8_000_000
_PART_TOKENS = 400_000
_BATCH_EXAMPLES = 2048
_MAX_PIECES = 8  # in which one pool is handed out by MakeExamples


@dataclasses.dataclass(frozen=True)
class Slice:
    """Where some documents of one slot are: `length` bytes at `offset` of a temporary file."""

    path: str
    offset: int
    length: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """`pool_of` [copies][SLOTS]: pool of each slot, -1 where a slot is empty; `parts` [copies][pools]: in how many
    parts each pool is worked off."""

    pool_of: tuple[tuple[int, ...], ...]
    parts: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Work:
    """Parts [first, end) of the `parts` of a pool, under a copy."""

    copy: int
    pool: int
    first: int
    end: int
    parts: int
    slices: tuple[Slice, ...]


class MakeExamples(beam.PTransform):
    """Documents -> serialized tf.Examples (bytes), as `preprocessing.features` states them, `dupe_factor` of each
    document.

    `temp_folder`: where tokens are kept meanwhile, readable by all workers; to be removed by the caller after the run.
    By default the pipeline's `temp_location`, or a folder of the local machine's.
    """

    def __init__(self, settings: ExampleSettings, vocab_path: str, temp_folder: str | None = None):
        super().__init__()
        self._settings = settings
        self._vocab_path = vocab_path
        self._temp_folder = temp_folder

    def expand(self, documents):
        return (
            documents
            | "Plan" >> PlanWork(self._settings, self._vocab_path, self._temp_folder)
            | beam.Reshuffle()
            | "Generate" >> beam.ParDo(_Generate(self._settings, self._vocab_path)).with_output_types(bytes)
        )


class WriteExamples(beam.PTransform):
    """Documents -> the same examples in `shards` TFRecord files `examples-00000-of-0000N.tfrecord` (`.gz`) in `folder`,
    of about the same size; gives the names of the files.

    A file gets its name when it is whole. Faster than MakeExamples into `WriteToTFRecord`, since no example passes
    through Beam by itself, and with a number of shards that is the same on every runner.
    """

    def __init__(
        self,
        settings: ExampleSettings,
        vocab_path: str,
        folder: str,
        *,
        shards: int,
        compression: Compression = "none",
        temp_folder: str | None = None,
        progress_folder: str | None = None,
    ):
        super().__init__()
        self._settings, self._vocab_path, self._temp_folder = settings, vocab_path, temp_folder
        self._shards, self._progress_folder = shards, progress_folder
        self._write = _WriteShard(settings, vocab_path, folder, shards, compression, progress_folder)

    def expand(self, documents):
        plan = PlanWork(self._settings, self._vocab_path, self._temp_folder, self._shards, self._progress_folder)
        work = documents | "Plan" >> plan
        every = documents.pipeline | "Shards" >> beam.Create([(shard, None) for shard in range(self._shards)])
        return (work, every) | beam.Flatten() | beam.GroupByKey() | "Write" >> beam.ParDo(self._write)


class PlanWork(beam.PTransform):
    """Documents -> Work, or (shard, Work) where `shards` is given."""

    def __init__(
        self,
        settings: ExampleSettings,
        vocab_path: str,
        temp_folder: str | None,
        shards: int | None = None,
        progress_folder: str | None = None,
    ):
        super().__init__()
        self._settings, self._vocab_path, self._temp_folder = settings, vocab_path, temp_folder
        self._shards, self._progress_folder = shards, progress_folder

    def expand(self, documents):
        options = documents.pipeline.options.get_all_options()
        folder = self._temp_folder or options.get("temp_location") or _local_folder()
        slots = (
            documents
            | "Tokenize"
            >> beam.ParDo(_Spill(self._settings, self._vocab_path, folder, self._progress_folder)).with_output_types(
                tuple[int, tuple[Slice, bytes]]
            )
            | beam.GroupByKey()
            | "CountSlot" >> beam.Map(_count_slot)
        )
        plan = (
            slots
            | beam.Map(lambda slot: (slot[0], slot[1], slot[2]))
            | beam.CombineGlobally(ToListCombineFn())
            | "MakePlan" >> beam.Map(make_plan, self._settings, self._shards)
        )
        pools = slots | "Deal" >> beam.FlatMap(_deal, AsSingleton(plan)) | "Pools" >> beam.GroupByKey()
        return pools | "Cut" >> beam.FlatMap(_cut_pool, AsSingleton(plan), self._shards)


def _local_folder() -> str:
    """A folder of this machine's, removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="bert-tokens-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.lru_cache(maxsize=2)
def _tokenizer(path: str, lower_case: bool):
    # Imported here: TensorFlow takes seconds, which the launching process need not spend.
    from preprocessing.tokenizer import BertTokenizer

    return BertTokenizer.from_vocab(path, lower_case=lower_case)


def tokenize_documents(documents: list[Document], tokenizer) -> TokenizedDocuments:
    """Documents as token ids; sentences without a token are left out, documents without one too."""
    owners = np.repeat(np.arange(len(documents)), [len(document.sentences) for document in documents])
    ragged = tokenizer.tokenize([sentence for document in documents for sentence in document.sentences])
    lengths = ragged.row_lengths().numpy().astype(np.int32)
    owners = owners[lengths > 0]
    counts = np.bincount(owners, minlength=len(documents)).astype(np.int32)
    ids = np.frombuffer(b"".join(document.id for document in documents), ID_TYPE)
    return TokenizedDocuments(ids[counts > 0], counts[counts > 0], lengths[lengths > 0], ragged.values.numpy())


class _Spill(beam.DoFn):
    """Documents -> (slot, (Slice, packed ids and token counts))."""

    def __init__(self, settings, vocab_path, folder, progress_folder=None):
        self._settings, self._vocab_path, self._folder = settings, vocab_path, folder
        self._progress = WorkerProgress(progress_folder)
        self._count = {
            name: Metrics.counter(NAMESPACE, name)
            for name in ("documents", "sentences", "tokens", "unknown_tokens", "documents_empty")
        }

    def start_bundle(self):
        self._texts, self._text_bytes = [], 0
        self._tokenized, self._tokens = [], 0

    def process(self, document):
        self._texts.append(document)
        self._text_bytes += sum(map(len, document.sentences))
        if self._text_bytes >= _TEXT_BATCH_BYTES:
            self._tokenize()
            if self._tokens >= _SPILL_TOKENS:
                yield from self._write()

    def finish_bundle(self):
        self._tokenize()
        for element in self._write():
            yield GlobalWindows.windowed_value(element)

    def _tokenize(self):
        if not self._texts:
            return
        tokenizer = _tokenizer(self._vocab_path, self._settings.lower_case)
        found = tokenize_documents(self._texts, tokenizer)
        self._count["documents"].inc(len(found.ids))
        self._progress.add(documents=len(found.ids), tokens=len(found.tokens))
        self._count["documents_empty"].inc(len(self._texts) - len(found.ids))
        self._count["sentences"].inc(len(found.sentence_lengths))
        self._count["tokens"].inc(len(found.tokens))
        self._count["unknown_tokens"].inc(int((found.tokens == tokenizer.unk_id).sum()))
        self._tokenized.append(found)
        self._tokens += len(found.tokens)
        self._texts, self._text_bytes = [], 0

    def _write(self) -> Iterator[tuple[int, tuple[Slice, bytes]]]:
        """Sorts what has been tokenized by slot, and writes it to a file of its own: a bundle that is tried again does
        not touch what an earlier attempt wrote."""
        if not self._tokenized:
            return
        found = token_store.concatenate(self._tokenized)
        self._tokenized, self._tokens = [], 0
        slots = slot_of(found.ids)
        order = np.argsort(slots, kind="stable")
        found, slots = found.take(order), slots[order]
        counts = found.token_counts()
        path = FileSystems.join(self._folder, f"tokens-{uuid.uuid4().hex}")
        offset = 0
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
            for slot, documents, part in found.runs(slots):
                data = part.to_bytes()
                handle.write(data)
                index = part.ids.tobytes() + counts[documents].astype("<i8").tobytes()
                yield slot, (Slice(path, offset, len(data)), index)
                offset += len(data)


def slot_of(ids) -> np.ndarray:
    """Slot of each document id, [D]."""
    return (counter_random.document_keys(ids, 0, 0, "slot") % np.uint64(SLOTS)).astype(np.int64)


def _count_slot(grouped) -> tuple[int, int, int, tuple[Slice, ...]]:
    """(slot, its documents, their tokens, slices), each document counted once."""
    slot, values = grouped
    values = list(values)
    ids, tokens = [], []
    for _, index in values:
        number = len(index) // (ID_TYPE.itemsize + 8)
        ids.append(np.frombuffer(index, ID_TYPE, number))
        tokens.append(np.frombuffer(index, "<i8", number, number * ID_TYPE.itemsize))
    _, first = np.unique(np.concatenate(ids), return_index=True)
    return slot, len(first), int(np.concatenate(tokens)[first].sum()), tuple(where for where, _ in values)


def make_plan(slots: Iterable[tuple[int, int, int]], settings: ExampleSettings, shards: int | None = None) -> Plan:
    """Deals slots (slot, documents, tokens) into pools of some POOL_TOKENS and at least two documents, in an order of
    its own for each copy, so that the other documents a document meets change from copy to copy."""
    slots = sorted(slots)
    documents = sum(count for _, count, _ in slots)
    if not documents:
        raise InputError("no document has a token: check the input and the vocabulary")
    if documents < 2 and settings.pairs == "next-sentence":
        raise InputError(
            "no next sentence to draw: next-sentence pairs need two documents or more. Received: 1. "
            "Separate documents by blank lines, or choose --pairs none or sentence-order"
        )
    tokens = sum(count for _, _, count in slots)
    wanted = max(1, round(tokens / POOL_TOKENS))
    pool_of, pool_tokens = [], []
    for copy in range(settings.dupe_factor):
        keys = counter_random.bits(counter_random.named_key(settings.seed, copy, "pools"), [slot for slot, *_ in slots])
        of = [-1] * SLOTS
        held = [[0, 0]]  # documents, tokens
        for at in np.argsort(keys, kind="stable"):
            slot, count, size = slots[at]
            if held[-1][0] >= 2 and held[-1][1] >= tokens / wanted:
                held.append([0, 0])
            of[slot] = len(held) - 1
            held[-1][0] += count
            held[-1][1] += size
        if len(held) > 1 and held[-1][0] < 2:
            of = [min(pool, len(held) - 2) for pool in of]
            held[-2:] = [[held[-2][0] + held[-1][0], held[-2][1] + held[-1][1]]]
        pool_of.append(tuple(of))
        pool_tokens.append([size for _, size in held])
    least = math.ceil((shards or 1) / sum(map(len, pool_tokens)))
    parts = tuple(tuple(max(least, math.ceil(size / _PART_TOKENS)) for size in sizes) for sizes in pool_tokens)
    return Plan(tuple(pool_of), parts)


def _deal(slot, plan: Plan):
    number, _, _, slices = slot
    for copy, pool_of in enumerate(plan.pool_of):
        yield (copy, pool_of[number]), slices


def _cut_pool(grouped, plan: Plan, shards: int | None):
    """((copy, pool), slices) -> Work, or (shard, Work): consecutive parts of the whole go to one shard."""
    (copy, pool), slices = grouped
    slices = tuple(where for some in slices for where in some)
    parts = plan.parts[copy][pool]
    if shards is None:
        pieces = min(parts, _MAX_PIECES)
        bounds = [piece * parts // pieces for piece in range(pieces + 1)]
        for first, end in itertools.pairwise(bounds):
            yield Work(copy, pool, first, end, parts, slices)
        return
    before = sum(map(sum, plan.parts[:copy])) + sum(plan.parts[copy][:pool])
    total = sum(map(sum, plan.parts))
    by_shard = collections.defaultdict(list)
    for part in range(parts):
        by_shard[(before + part) * shards // total].append(part)
    for shard, own in by_shard.items():
        yield shard, Work(copy, pool, own[0], own[-1] + 1, parts, slices)


def read_pool(slices: Iterable[Slice]) -> Pool:
    """The documents of the slices. Neighbouring slices of a file are read at once."""
    by_path = collections.defaultdict(list)
    for where in slices:
        by_path[where.path].append((where.offset, where.length))
    parts: list[TokenizedDocuments] = []
    for path, ranges in sorted(by_path.items()):
        runs: list[list[int]] = []
        for offset, length in sorted(ranges):
            if runs and runs[-1][1] == offset:
                runs[-1][1] += length
            else:
                runs.append([offset, offset + length])
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
            for start, end in runs:
                handle.seek(start)
                parts.extend(token_store.from_bytes(handle.read(end - start)))
    return Pool(token_store.concatenate(parts))


class _Generate(beam.DoFn):
    """Work -> serialized examples."""

    def __init__(self, settings, vocab_path, progress_folder=None):
        self._settings, self._vocab_path = settings, vocab_path
        self._progress = WorkerProgress(progress_folder)
        names = ("examples", "positions", "padding", "predictions", "random_next")
        self._count = {name: Metrics.counter(NAMESPACE, name) for name in names}
        self._maker = None

    def process(self, work):
        for batch in self.batches(work):
            yield from batch

    def batches(self, work) -> Iterator[list[bytes]]:
        if self._maker is None:
            self._maker = ExampleMaker(self._settings, _tokenizer(self._vocab_path, self._settings.lower_case))
        pool = read_pool(work.slices)
        before = np.cumsum(pool.token_counts) - pool.token_counts
        part = before * work.parts // max(int(pool.token_counts.sum()), 1)
        for number in range(work.first, work.end):
            found = self._maker.draw(pool, work.copy, np.flatnonzero(part == number))
            for start in range(0, len(found), _BATCH_EXAMPLES):
                columns = self._maker.columns(pool, found.take(slice(start, start + _BATCH_EXAMPLES)))
                self._tally(columns)
                yield self._maker.serialize(columns)

    def _tally(self, columns):
        real = columns[features.INPUT_MASK]
        self._count["examples"].inc(len(real))
        self._progress.add(examples=len(real))
        self._count["positions"].inc(real.size)
        self._count["padding"].inc(int(real.size - real.sum()))
        self._count["predictions"].inc(int(columns[features.MASKED_LM_WEIGHTS].sum()))
        self._count["random_next"].inc(int(columns[features.NEXT_SENTENCE_LABELS].sum()))


class _WriteShard(_Generate):
    """(shard, Works) -> name of the file."""

    def __init__(self, settings, vocab_path, folder, shards, compression, progress_folder=None):
        super().__init__(settings, vocab_path, progress_folder)
        self._folder, self._shards, self._compression = folder, shards, compression

    def process(self, element):
        shard, works = element
        works = sorted((work for work in works if work is not None), key=lambda work: (work.copy, work.pool))
        name = FileSystems.join(self._folder, shard_name(shard, self._shards, self._compression))
        scratch = f"{name}.{uuid.uuid4().hex}.tmp"
        with FileSystems.create(scratch, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
            handle = gzip.GzipFile("", "wb", 6, raw, mtime=0) if self._compression == "gzip" else raw
            for work in works:
                for batch in self.batches(work):
                    handle.write(tfrecord.frame(batch))
            if handle is not raw:
                handle.close()
        with contextlib.suppress(Exception):
            FileSystems.delete([name])  # of an earlier attempt at the same shard
        FileSystems.rename([scratch], [name])
        yield name


def shard_name(shard: int, shards: int, compression: Compression = "none") -> str:
    return f"examples-{shard:05d}-of-{shards:05d}.tfrecord{'.gz' if compression == 'gzip' else ''}"


def report(counters: Mapping[str, int]) -> dict[str, float]:
    """What ReadDocuments and MakeExamples did, from `beam_runner.counters`: counts, and shares as fractions."""

    def share(part: str, whole: str) -> float:
        return round(counters.get(part, 0) / max(counters.get(whole, 0), 1), 6)

    names = ("documents", "sentences", "tokens", "examples", "duplicates", "lines", "lines_set_aside")
    real = counters.get("positions", 0) - counters.get("padding", 0)
    return {name: counters.get(name, 0) for name in (*names, "documents_split", "documents_empty")} | {
        "padding_share": share("padding", "positions"),
        "masked_share": round(counters.get("predictions", 0) / max(real, 1), 6),
        "random_next_share": share("random_next", "examples"),
        "unknown_share": share("unknown_tokens", "tokens"),
    }


class CountWords(beam.PTransform):
    """Documents -> (word, count), the words as the tokenizer divides text (lower-cased and stripped of accents where
    `lower_case`), for vocabulary learning."""

    def __init__(self, lower_case: bool = True):
        super().__init__()
        self._lower_case = lower_case

    def expand(self, documents):
        return (
            documents
            | "Count" >> beam.ParDo(_CountWords(self._lower_case)).with_output_types(tuple[str, int])
            | "Sum" >> beam.CombinePerKey(sum)
        )


class _CountWords(beam.DoFn):
    _MAX_WORDS = 1_000_000  # held by a worker at a time

    def __init__(self, lower_case):
        self._lower_case = lower_case

    def start_bundle(self):
        self._texts, self._size = [], 0
        self._counts: collections.Counter[str] = collections.Counter()

    def process(self, document):
        self._texts.extend(document.sentences)
        self._size += sum(map(len, document.sentences))
        if self._size >= _TEXT_BATCH_BYTES:
            self._count()
            if len(self._counts) > self._MAX_WORDS:
                yield from self._counts.items()
                self._counts = collections.Counter()

    def finish_bundle(self):
        self._count()
        for item in self._counts.items():
            yield GlobalWindows.windowed_value(item)

    def _count(self):
        from preprocessing.words import count_words

        if self._texts:
            self._counts.update(count_words(self._texts, self._lower_case))
        self._texts, self._size = [], 0
