"""Beam transforms from documents to masked examples, written.

How a corpus becomes examples without being held: workers tokenize documents and write the tokens to temporary files,
cut into slots by a hash of the document's id; Beam groups only references (`spilling`), and some 30 bytes of each
document. A plan then deals the slots into pools, anew for each copy (`planning`), where there are many files they are
written anew by groups of slots (`examples.regrouping`), and each pool is read back by whoever makes its examples:
random next sentences come from other documents of the pool. Slots, pools and every random number depend on the
documents alone, so the set of examples is byte-identical for any workers, order, sharding and runner. A worker holds a
pool or two, some 100 MB; slots are split for up to 64 * 1024 pools (524 G tokens), and more are refused.
"""

import atexit
import contextlib
import gzip
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from preprocessing import features, tfrecord
from preprocessing.beam.progress import WorkerProgress
from preprocessing.beam.runner import NAMESPACE
from preprocessing.examples import planning
from preprocessing.examples.maker import ExampleMaker
from preprocessing.examples.planning import Work
from preprocessing.examples.spilling import Spill, load_tokenizer
from preprocessing.settings import Compression, CorpusSettings, ExampleSettings

# These only decide how the work is cut.
_BATCH_EXAMPLES = 2048
_WHERE_ASKED_FOR = ("near_duplicates", "phrases_found", "phrases_masked")
_EXPANSION = 1.8  # bytes of examples for a byte of text and a copy, at google's settings


class MakeExamples(beam.PTransform):
    """Documents -> serialized tf.Examples (bytes), as `preprocessing.features` states them, `dupe_factor` of each
    document.

    `temp_folder`: where tokens are kept meanwhile, readable by all workers; to be removed by the caller after the run.
    By default the pipeline's `temp_location`, or a folder of the local machine's.
    """

    def __init__(self, settings: ExampleSettings, vocab_path: str, temp_folder: str | None = None):
        super().__init__()
        self._settings, self._vocab_path, self._temp_folder = settings, vocab_path, temp_folder

    def expand(self, documents):
        folder = self._temp_folder or _temp_folder(documents.pipeline)
        return (
            documents
            | Spill(self._settings, self._vocab_path, folder)
            | planning.PlanWork(self._settings, folder)
            | "Share out" >> beam.GroupByKey()
            | "Generate" >> beam.ParDo(_Generate(self._settings, self._vocab_path)).with_output_types(bytes)
        )


class WriteExamples(beam.PTransform):
    """Documents -> the same examples in `shards` TFRecord files `examples-00000-of-0000N.tfrecord` (`.gz`) in `folder`,
    or with another `name`, of about the same size; gives the names of the files.

    A file gets its name when it is whole. Faster than MakeExamples into `WriteToTFRecord`, since no example passes
    through Beam by itself, and with a number of shards that is the same on every runner.

    With `corpus`, applied to the pipeline itself, it reads those files, each once: in place of `corpus.ReadDocuments`,
    whose arguments, errors and results (`set_aside`, counters) it takes over.
    """

    def __init__(
        self,
        settings: ExampleSettings,
        vocab_path: str,
        folder: str,
        *,
        shards: int,
        name: str = "examples",
        compression: Compression = "none",
        temp_folder: str | None = None,
        progress_folder: str | None = None,
        corpus: CorpusSettings | None = None,
        set_aside: str | None = None,
    ):
        super().__init__()
        self._settings, self._vocab_path, self._temp_folder = settings, vocab_path, temp_folder
        self._shards, self._progress_folder = shards, progress_folder
        self._corpus, self._set_aside = corpus, set_aside
        self._write = _WriteShard(settings, vocab_path, folder, name, shards, compression, progress_folder)

    def expand(self, source):
        folder = self._temp_folder or _temp_folder(source.pipeline)
        return (
            source
            | Spill(self._settings, self._vocab_path, folder, self._corpus, self._progress_folder)
            | planning.PlanWork(self._settings, folder, self._shards, self._corpus, self._set_aside)
            | "Shards" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(self._write)
        )


def _temp_folder(pipeline) -> str:
    """The pipeline's, or one of this machine's, removed when this process ends."""
    folder = pipeline.options.get_all_options().get("temp_location")
    if not folder:
        folder = tempfile.mkdtemp(prefix="bert-tokens-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class _Generate(beam.DoFn):
    """(number, Works) -> serialized examples."""

    def __init__(self, settings, vocab_path, progress_folder=None):
        self._settings, self._vocab_path = settings, vocab_path
        self._progress = WorkerProgress(progress_folder)
        names = ("examples", "positions", "padding", "predictions", "random_next")
        self._count = {name: Metrics.counter(NAMESPACE, name) for name in names}
        self._maker = None

    def process(self, numbered):
        for work in numbered[1]:
            for batch in self.batches(work):
                yield from batch

    def batches(self, work: Work) -> Iterator[list[bytes]]:
        if self._maker is None:
            self._maker = ExampleMaker(self._settings, load_tokenizer(self._vocab_path, self._settings.lower_case))
        pool = planning.read_pool(work)
        before = np.cumsum(pool.token_counts) - pool.token_counts
        part = before * work.parts // max(int(pool.token_counts.sum()), 1)
        for number in range(work.first, work.end):
            found = self._maker.draw(pool, work.copy, np.flatnonzero(part == number))
            for start in range(0, len(found), _BATCH_EXAMPLES):
                columns, phrases = self._maker.columns(pool, found.take(slice(start, start + _BATCH_EXAMPLES)))
                self._tally(columns, phrases)
                yield self._maker.serialize(columns)

    def _tally(self, columns, phrases):
        real = columns[features.INPUT_MASK]
        self._count["examples"].inc(len(real))
        self._progress.add(examples=len(real))
        self._count["positions"].inc(real.size)
        self._count["padding"].inc(int(real.size - real.sum()))
        self._count["predictions"].inc(int(columns[features.MASKED_LM_WEIGHTS].sum()))
        self._count["random_next"].inc(int(columns[features.NEXT_SENTENCE_LABELS].sum()))
        for name, count in phrases.items():
            Metrics.counter(NAMESPACE, name).inc(count)


class _WriteShard(_Generate):
    """(shard, Works) -> name of the file."""

    def __init__(self, settings, vocab_path, folder, name, shards, compression, progress_folder=None):
        super().__init__(settings, vocab_path, progress_folder)
        self._folder, self._name, self._shards, self._compression = folder, name, shards, compression

    def process(self, element):
        shard, works = element
        works = sorted((work for work in works if work is not None), key=lambda work: (work.copy, work.pool))
        name = FileSystems.join(self._folder, shard_name(shard, self._shards, self._compression, self._name))
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


def number_of_shards(text_bytes: int, dupe_factor: int) -> int:
    """So many that each will have about 128 MB, whatever the runner. Text and examples are both compressed, or both
    not."""
    return max(1, round(text_bytes * dupe_factor * _EXPANSION / (128 << 20)))


def shard_name(shard: int, shards: int, compression: Compression = "none", name: str = "examples") -> str:
    return f"{name}-{shard:05d}-of-{shards:05d}.tfrecord{'.gz' if compression == 'gzip' else ''}"


def report(counters: Mapping[str, int]) -> dict[str, float]:
    """What ReadDocuments and MakeExamples did, from `runner.counters`: counts, and shares as fractions."""

    def share(part: str, whole: str) -> float:
        return round(counters.get(part, 0) / max(counters.get(whole, 0), 1), 6)

    names = ("documents", "sentences", "tokens", "examples", "duplicates", "lines", "lines_set_aside", "bytes",
             "bytes_set_aside", "lines_without_text", "carriage_returns_in_lines", "files_read_in_part")  # fmt: skip
    real = counters.get("positions", 0) - counters.get("padding", 0)
    return {name: counters.get(name, 0) for name in (*names, "documents_split", "documents_empty")} | {
        "padding_share": share("padding", "positions"),
        "masked_share": round(counters.get("predictions", 0) / max(real, 1), 6),
        "random_next_share": share("random_next", "examples"),
        "unknown_share": share("unknown_tokens", "tokens"),
        **{name: counters[name] for name in _WHERE_ASKED_FOR if name in counters},
    }
