"""Documents that are nearly another one, by MinHash (Broder 1997) and locality-sensitive hashing.

How alike two documents are is the Jaccard index of their sets of five words that follow each other. Of each document
128 minima are kept, of as many hash functions: two documents agree in each with the probability of that index. They
are cut into bands, as long as still let documents that are alike enough meet in one (99 %); who meets in a band, and
agrees in so many of all minima, is alike. Of all that hang together so the first in the order of the files stays.

Written here and not taken from a library: what is needed of one (datasketch's MinHash) is these two dozen lines, which
in NumPy over a whole document take less time than its calls for each word; and its index of bands is held in one
process, while here no more than 500 bytes of a document go through Beam, and the minima of candidates alone meet.

Shapes: D documents, M five-word runs of one, H = 128 hash functions, E pairs.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from preprocessing.beam.runner import NAMESPACE
from preprocessing.corpus.documents import ID_TYPE

FUNCTIONS = 128
_RUN = 5  # words
_RECALL = 0.99  # of those that are just alike enough, by the bands
_BUCKETS = 256
_BLOCK = 4096  # runs that are hashed at once

# A character of a script without blanks is a word. No \w, which is another set in each Python.
_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_ALONE}]|[^\s!-/:-@\[-`{{-~\u2010-\u206f{_ALONE}]+")

_PLACE = np.dtype([("chunk", "<u4"), ("document", "<u4")])
_BAND = np.dtype([("hash", "<u8"), ("place", _PLACE)])
_SKETCH = np.dtype([("id", ID_TYPE), ("document", "<u4"), ("minima", "u1", FUNCTIONS)])
_PAIR = np.dtype([("one", _PLACE), ("other", _PLACE)])

_FACTORS, _TERMS = (
    np.frombuffer(hashlib.shake_256(name).digest(8 * FUNCTIONS), "<u8") | np.uint64(1)
    for name in (b"factors", b"terms")
)
_WORD_FACTORS = np.frombuffer(hashlib.shake_256(b"words").digest(8 * _RUN), "<u8") | np.uint64(1)


def rows(threshold: float) -> int:
    """Minima in a band."""
    fitting = (r for r in range(FUNCTIONS, 1, -1) if (1 - threshold**r) ** (FUNCTIONS // r) <= 1 - _RECALL)
    return next(fitting, 1)


def words(text: str) -> list[str]:
    """What is compared: small and capital letters of ASCII are alike, punctuation and white space do not count."""
    return _WORD.findall(text.encode().lower().decode())


class Sketcher:
    """Minima of documents. Remembers the hashes of words."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> npt.NDArray[np.uint32] | None:
        """uint32 [H]; None for a text without words."""
        found = words(text)
        if not found:
            return None
        hashes = np.array([self._hash(word) for word in found], np.uint64)
        size = min(_RUN, len(hashes))
        runs = np.zeros(len(hashes) - size + 1, np.uint64)
        for place in range(size):
            runs += hashes[place : place + len(runs)] * _WORD_FACTORS[place]
        runs ^= runs >> np.uint64(32)
        minima = np.full(FUNCTIONS, 2**32 - 1, np.uint64)
        for start in range(0, len(runs), _BLOCK):
            values = runs[start : start + _BLOCK, None] * _FACTORS + _TERMS >> np.uint64(32)
            minima = np.minimum(minima, values.min(axis=0))
        return minima.astype(np.uint32)

    def _hash(self, word: str) -> int:
        found = self._known.get(word)
        if found is None:
            if len(self._known) > 1 << 20:
                self._known.clear()
            found = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
            self._known[word] = found
        return found


def survey(chunk: int, ids: Sequence[bytes], minima: Sequence[npt.NDArray | None], threshold: float) -> Iterator:
    """What `Find` needs of a chunk's documents: tagged "bands": (bucket, packed `_BAND`s), and tagged "sketches":
    (chunk, packed `_SKETCH`es)."""
    numbers = np.array([number for number, found in enumerate(minima) if found is not None], np.int64)
    found = np.array([minima[number] for number in numbers], np.uint32).reshape(-1, FUNCTIONS)
    size = rows(threshold)
    bands = np.empty((FUNCTIONS // size, len(numbers)), _BAND)
    bands["place"]["chunk"], bands["place"]["document"] = chunk, numbers
    for band in range(len(bands)):
        part = found[:, band * size : (band + 1) * size].astype(np.uint64)
        mixed = np.full(len(part), band, np.uint64)
        for value in part.T:
            mixed = (mixed ^ value) * _FACTORS[0]
            mixed ^= mixed >> np.uint64(29)
        bands["hash"][band] = mixed
    flat = bands.reshape(-1)
    buckets = flat["hash"] % np.uint64(_BUCKETS)
    for bucket in np.unique(buckets):
        yield TaggedOutput("bands", (int(bucket), flat[buckets == bucket].tobytes()))
    sketches = np.zeros(len(numbers), _SKETCH)
    sketches["id"] = np.frombuffer(b"".join(ids), ID_TYPE)[numbers]
    sketches["document"], sketches["minima"] = numbers, found.astype(np.uint8)
    yield TaggedOutput("sketches", (chunk, sketches.tobytes()))


class Find(beam.PTransform):
    """{"bands", "sketches", "sizes"} -> (chunk, packed numbers of the documents that are nearly an earlier one), as
    `reading` has it of those that repeat one. "sizes": (0, (chunk, path, number of documents)).

    `listed`: a file of JSON lines, one for each of them, in order: `file` and `document` (its number in the file, from
    1), the same of the one that stays as `like_file` and `like_document`, and `alike`, how much the two are.
    """

    def __init__(self, threshold: float, listed: str | None):
        super().__init__()
        self._threshold, self._listed = threshold, listed

    def expand(self, surveyed):
        pairs = (
            surveyed["bands"]
            | "Buckets" >> beam.GroupByKey()
            | "Pairs" >> beam.FlatMap(_pairs).with_output_types(tuple[int, bytes])
        )
        wanted = pairs | "Wanted" >> beam.FlatMap(_wanted).with_output_types(tuple[int, bytes])
        picked = (
            {"wanted": wanted, "sketches": surveyed["sketches"]}
            | "Candidates" >> beam.CoGroupByKey()
            | "Pick" >> beam.FlatMap(_picked).with_output_types(tuple[int, tuple[int, bytes]])
        )
        together = {"pairs": pairs, "picked": picked, "sizes": surveyed["sizes"]} | "All" >> beam.CoGroupByKey()
        return together | "Near" >> beam.FlatMap(_near, self._threshold, self._listed)


def _pairs(bucket: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
    """(0, packed `_PAIR`s): who shares a band, each with the first that has it and with the one before it."""
    found = np.frombuffer(b"".join(bucket[1]), _BAND)
    found = found[np.lexsort((found["place"]["document"], found["place"]["chunk"], found["hash"]))]
    again = np.flatnonzero(found["hash"][1:] == found["hash"][:-1]) + 1
    if not len(again):
        return
    first = np.arange(len(found))
    first[again] = 0
    first = np.maximum.accumulate(first)[again]
    made = np.empty(2 * len(again), _PAIR)
    made["one"] = np.concatenate([found["place"][first], found["place"][again - 1]])
    made["other"] = np.tile(found["place"][again], 2)
    yield 0, np.unique(made).tobytes()


def _wanted(pairs: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
    places = np.unique(np.frombuffer(pairs[1], _PLACE))
    for chunk in np.unique(places["chunk"]):
        yield int(chunk), places["document"][places["chunk"] == chunk].tobytes()


def _picked(grouped: tuple[int, dict[str, Iterable[bytes]]]) -> Iterator[tuple[int, tuple[int, bytes]]]:
    chunk, found = grouped
    wanted = np.frombuffer(b"".join(found["wanted"]), "<u4")
    sketches = np.frombuffer(b"".join(found["sketches"]), _SKETCH)
    if len(wanted):
        yield 0, (chunk, sketches[np.isin(sketches["document"], wanted)].tobytes())


def _near(grouped: tuple[int, dict[str, Iterable]], threshold: float, listed: str | None):
    found = grouped[1]
    pairs = np.unique(np.frombuffer(b"".join(found["pairs"]), _PAIR))
    if not len(pairs):
        Metrics.counter(NAMESPACE, "near_duplicates").inc(0)
        return
    picked = [(chunk, np.frombuffer(data, _SKETCH)) for chunk, data in sorted(found["picked"])]
    sketches = np.concatenate([part for _, part in picked])
    places = np.zeros(len(sketches), _PLACE)
    places["chunk"] = np.repeat([chunk for chunk, _ in picked], [len(part) for _, part in picked])
    places["document"] = sketches["document"]

    keys = _keys(places)  # ascending, in the order of the files
    one, other = (np.searchsorted(keys, _keys(pairs[side])) for side in ("one", "other"))
    close = alike(sketches["minima"][one], sketches["minima"][other]) >= threshold
    graph = coo_array((np.ones(close.sum()), (one[close], other[close])), (len(keys), len(keys)))
    group = connected_components(graph, directed=False)[1]
    stays = np.unique(group, return_index=True)[1][group]
    _, original, same = np.unique(sketches["id"], return_index=True, return_inverse=True)
    # Those that repeat one word for word are counted as such, and left out as such.
    near = np.flatnonzero((stays != np.arange(len(keys))) & (original[same] == np.arange(len(keys))))
    Metrics.counter(NAMESPACE, "near_duplicates").inc(len(near))
    if listed and len(near):
        numbers = _numbers(found["sizes"])
        likeness = alike(sketches["minima"][near], sketches["minima"][stays[near]])
        with FileSystems.create(listed) as file:
            for this, that, much in zip(places[near], places[stays[near]], likeness.tolist(), strict=True):
                named = numbers(this), numbers(that)
                row = {"file": named[0][0], "document": named[0][1], "like_file": named[1][0]}
                row |= {"like_document": named[1][1], "alike": round(much, 3)}
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    for chunk in np.unique(places["chunk"][near]):
        yield int(chunk), places["document"][near][places["chunk"][near] == chunk].tobytes()


def alike(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Jaccard index of pairs, estimated from the low bytes of their minima [E, H]: one in 256 is equal by chance."""
    return np.maximum((np.equal(one, other).mean(axis=1) - 1 / 256) / (1 - 1 / 256), 0)


def _keys(places) -> npt.NDArray[np.uint64]:
    return places["chunk"].astype(np.uint64) << np.uint64(32) | places["document"].astype(np.uint64)


def _numbers(sizes: Iterable[tuple[int, str, int]]):
    """Gives (file, number of the document in it) of a place; `sizes`: (chunk, path, number of documents)."""
    before: dict[int, int] = {}
    names: dict[int, str] = {}
    total: dict[str, int] = {}
    for chunk, path, count in sorted(sizes):
        before[chunk], names[chunk] = total.get(path, 0), path
        total[path] = before[chunk] + count
    return lambda place: (names[int(place["chunk"])], before[int(place["chunk"])] + int(place["document"]) + 1)
