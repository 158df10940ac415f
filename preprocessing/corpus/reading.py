"""Text files to documents: checked, cut into sentences, each once.

A document's id is a hash of its text. `ReadDocuments` reads the files twice: a first pass finds duplicates, bad lines
and totals, and only hashes leave it; the second gives the documents. So no runner has to hold the text.
"""

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsMultiMap, AsSingleton, TaggedOutput

from preprocessing.beam.runner import NAMESPACE
from preprocessing.corpus import near_duplicates, readers
from preprocessing.corpus.chunks import Chunk, Tally
from preprocessing.corpus.documents import ID_TYPE, Document, digest, make_document
from preprocessing.corpus.inputs import find_chunks
from preprocessing.corpus.reports import ChunkReport, check_reports
from preprocessing.settings import CorpusSettings

_ORDINAL = np.dtype([("id", ID_TYPE), ("chunk", "<u4"), ("document", "<u4")])


class ReadDocuments(beam.PTransform):
    """pbegin -> PCollection of Document, each text once.

    Lines that cannot be used are counted and, with `set_aside`, written there as JSON lines (file, line, reason, text);
    the run stops with InputError (see `runner.run`) when their share exceeds `max_bad_share`, or when there is
    no text at all. Documents come in no particular order.

    With the settings' `near_duplicates`, documents that are nearly an earlier one, in the order of the files, are left
    out and counted, too, and told in the file `listed` (see `near_duplicates.Find`).
    """

    def __init__(self, settings: CorpusSettings, set_aside: str | None = None, listed: str | None = None):
        super().__init__()
        self._settings = settings
        self._set_aside, self._listed = set_aside, listed

    def expand(self, pbegin):
        chunks = pbegin | "Chunks" >> Chunks(self._settings)
        near = ("bands", "sketches", "sizes") if self._settings.near_duplicates else ()
        survey = chunks | "Survey" >> beam.ParDo(_Survey(self._settings)).with_output_types(
            tuple[int, bytes]
        ).with_outputs("reports", *near, main="ids")
        checked = (
            survey.reports
            | "Reports" >> beam.GroupByKey()
            | "Check" >> beam.MapTuple(lambda _, reports: check_reports(reports, self._settings, self._set_aside))
        )
        repeated = survey.ids | beam.GroupByKey() | "Repeated" >> beam.FlatMap(_repeated)
        if self._settings.near_duplicates:
            found = near_duplicates.Find(self._settings.near_duplicates, self._listed)
            alike = {name: survey[name] for name in near} | "NearDuplicates" >> found
            repeated = (repeated, alike) | "Left out" >> beam.Flatten()
        return chunks | "Read" >> beam.ParDo(
            _Read(self._settings), AsMultiMap(repeated), AsSingleton(checked)
        ).with_output_types(Document)


class Chunks(beam.PTransform):
    """pbegin -> (number, [Chunk]), grouped so that the workers share them out."""

    def __init__(self, settings: CorpusSettings):
        super().__init__()
        self._settings = settings

    def expand(self, pbegin):
        numbered = [(chunk.index, chunk) for chunk in find_chunks(self._settings)]
        return (
            pbegin
            | beam.Impulse()
            | beam.FlatMap(lambda _: numbered).with_output_types(tuple[int, Chunk])
            | beam.GroupByKey()
        )


class _Survey(beam.DoFn):
    """Chunks -> (bucket, packed `_ORDINAL`s); tagged "reports": (0, ChunkReport); and what `near_duplicates.Find`
    needs."""

    def __init__(self, settings):
        self._settings = settings
        self._sketch = near_duplicates.Sketcher() if settings.near_duplicates else lambda text: None

    def process(self, numbered):
        for chunk in numbered[1]:
            report = ChunkReport(chunk)
            texts = readers.read_texts(chunk, self._settings, report.tally, report.set_aside, report.notes.append)
            digests, minima = [], []
            for text in texts:
                digests.append(digest(text))
                minima.append(self._sketch(text))
            found = np.empty(len(digests), _ORDINAL)
            found["id"] = np.frombuffer(b"".join(digests), ID_TYPE)
            found["chunk"] = chunk.index
            found["document"] = np.arange(len(digests))
            buckets = np.array([digest[0] for digest in digests], np.uint8)
            for bucket in np.unique(buckets):
                yield int(bucket), found[buckets == bucket].tobytes()
            yield TaggedOutput("reports", (0, report))
            if self._settings.near_duplicates:
                yield from near_duplicates.survey(chunk.index, digests, minima, self._settings.near_duplicates)
                yield TaggedOutput("sizes", (0, (chunk.index, chunk.path, len(digests))))


def _repeated(bucket):
    """(bucket, packed ordinals) -> (chunk, packed numbers of the documents that repeat an earlier one)."""
    found = np.frombuffer(b"".join(bucket[1]), _ORDINAL)
    found = found[np.lexsort((found["document"], found["chunk"]))]
    _, first = np.unique(found["id"], return_index=True)
    again = np.delete(found, first)
    Metrics.counter(NAMESPACE, "duplicates").inc(len(again))
    for chunk in np.unique(again["chunk"]):
        yield int(chunk), again["document"][again["chunk"] == chunk].tobytes()


class _Read(beam.DoFn):
    """Chunks -> Documents, without the repeated ones."""

    def __init__(self, settings):
        self._settings = settings

    def process(self, numbered, repeated, checked):
        for chunk in numbered[1]:
            skip = set(np.frombuffer(b"".join(repeated[chunk.index]), "<u4").tolist())
            texts = readers.read_texts(chunk, self._settings, Tally(), lambda *line: None)
            for number, text in enumerate(texts):
                if number not in skip:
                    yield make_document(text, chunk.format, self._settings)
