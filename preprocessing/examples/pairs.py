"""Sentence pairs from tokenized documents: where segments A and B of each example begin and end.

The rules are those of google-research/bert's `create_instances_from_document`: sentences accumulate to a target length,
a random point divides them into A and B, and for half of the pairs B is replaced by the beginning of a random place in
**another** document of the pool (label 1), whereupon the unused sentences go back. Sentences are ranges in one flat
array of tokens, so a pair is four offsets, and nothing here loops over tokens.

Shapes: N examples, D documents, S sentences, T tokens, L = max_seq_length.
"""

import dataclasses
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

from preprocessing.examples import counter_random
from preprocessing.examples.counter_random import Keys
from preprocessing.examples.token_store import Pool
from preprocessing.settings import ExampleSettings

Ints = npt.NDArray[np.int64]

# Counters of the random draws of a document: 0 and 1 for its target length, then this many for each pair.
_DRAWS = 4
_TRUNCATION = np.uint64(1 << 32)


@dataclasses.dataclass(frozen=True)
class SegmentPairs:
    """N examples: A is `tokens[a_start:a_end]`, B is `tokens[b_start:b_end]` (empty for single segments).

    `label` is google's (1 = random or swapped), `key` uint64 seeds what is drawn for the example later, `row` and
    `b_row` are the rows of the documents in the pool that A and B are from.
    """

    a_start: Ints
    a_end: Ints
    b_start: Ints
    b_end: Ints
    label: Ints
    key: Keys
    row: Ints
    b_row: Ints

    def __len__(self) -> int:
        return len(self.key)

    def take(self, order) -> "SegmentPairs":
        return SegmentPairs(*(getattr(self, field.name)[order] for field in dataclasses.fields(self)))


def make_pairs(pool: Pool, rows: Ints, copy: int, settings: ExampleSettings) -> SegmentPairs:
    """Pairs of the pool's documents `rows` [D], truncated to max_seq_length, in the order of the documents.

    A function of the pool's content, the seed and the copy alone. With next-sentence pairs the pool must hold two
    documents or more (ValueError).
    """
    if settings.pairs == "next-sentence" and len(pool) < 2:
        raise ValueError("a random next sentence needs a pool of two documents or more")
    cut = {"next-sentence": _next_sentence, "sentence-order": _sentence_order, "none": _packed}[settings.pairs]
    room = settings.max_seq_length - (2 if settings.pairs == "none" else 3)
    keys = counter_random.document_keys(pool.ids[rows], settings.seed, copy)
    short = counter_random.uniform(keys, 0) < settings.short_seq_prob
    lengths = 2 + counter_random.below(counter_random.uniform(keys, 1), room - 1)
    targets = np.where(short, lengths, room).tolist()

    # Each pair uses up at least one sentence, so a document needs no more draws than it has sentences.
    counts = pool.end_sentence[rows] - pool.first_sentence[rows]
    draw_ends = np.cumsum(counts)
    draw_starts = (draw_ends - counts).tolist()
    ordinals = np.arange(draw_ends[-1] if len(rows) else 0) - np.repeat(draw_ends - counts, counts)
    draws = counter_random.uniform(
        np.repeat(keys, counts)[:, None], ordinals[:, None] * _DRAWS + 2 + np.arange(_DRAWS, dtype=np.int64)
    )

    first, end = pool.first_sentence[rows].tolist(), pool.end_sentence[rows].tolist()
    # Flat lists of numbers, not of tuples: those would keep the garbage collector busy.
    divide, change = draws[:, 0].tolist(), draws[:, 1].tolist()
    cuts: list[int] = []
    pair_counts = []
    for at, target in enumerate(targets):
        before = len(cuts)
        ends = pool.sentence_ends[first[at] : end[at] + 1].tolist()
        cut(ends, target, divide, change, draw_starts[at], cuts)
        pair_counts.append((len(cuts) - before) // 5)

    per_document = np.array(pair_counts, np.int64)
    a_start, a_end, b_start, b_end, target = np.array(cuts, np.int64).reshape(-1, 5).T.copy()
    ordinal = np.arange(len(a_start)) - np.repeat(np.cumsum(per_document) - per_document, per_document)
    row = np.repeat(rows, per_document)
    key = counter_random.bits(np.repeat(keys, per_document), (1 << 40) + ordinal)
    label = np.zeros(len(row), np.int64)
    b_row = row.copy()
    if settings.pairs == "next-sentence":
        random = np.flatnonzero(b_end < 0)
        draw = np.repeat(draw_ends - counts, per_document)[random] + ordinal[random]
        b_row[random], b_start[random], b_end[random] = _random_next(
            pool, row[random], draws[draw, 2:], (target - (a_end - a_start))[random]
        )
        label[random] = 1
    elif settings.pairs == "sentence-order":
        label[:] = b_start < a_start
    pairs = SegmentPairs(a_start, a_end, b_start, b_end, label, key, row, b_row)
    return _truncate(pairs, room)


# Each of the next three cuts one document, whose S sentences begin and end at `ends` [S + 1], and appends five numbers
# for each pair: start and end of A, start and end of B (-1: random), target length. Pair n of the document uses the
# draws `divide[n + ordinal]` and `change[n + ordinal]`.


def _next_sentence(ends, target, divide, change, ordinal, cuts):
    """google's loop."""
    sentences = len(ends) - 1
    start = 0
    while start < sentences:
        stop = bisect_left(ends, ends[start] + target, start + 1, sentences)
        count = stop - start
        middle = start + (1 + int(divide[ordinal] * (count - 1)) if count > 1 else 1)
        if count == 1 or change[ordinal] < 0.5:
            cuts += ends[start], ends[middle], -1, -1, target
            start = middle
        else:
            cuts += ends[start], ends[middle], ends[middle], ends[stop], target
            start = stop
        ordinal += 1


def _sentence_order(ends, target, divide, change, ordinal, cuts):
    """B is always the true next, and the two are swapped for half of the pairs. At least two sentences make a pair; a
    single one left over at a document's end is dropped."""
    sentences = len(ends) - 1
    start = 0
    while start < sentences - 1:
        stop = max(bisect_left(ends, ends[start] + target, start + 1, sentences), start + 2)
        middle = start + 1 + int(divide[ordinal] * (stop - start - 1))
        if change[ordinal] < 0.5:
            cuts += ends[middle], ends[stop], ends[start], ends[middle], target
        else:
            cuts += ends[start], ends[middle], ends[middle], ends[stop], target
        start = stop
        ordinal += 1


def _packed(ends, target, divide, change, ordinal, cuts):
    """Whole sentences up to the target length, as single segments; a longer sentence is cut into pieces of it."""
    sentences = len(ends) - 1
    start = 0
    while start < sentences:
        stop = max(bisect_left(ends, ends[start] + target + 1, start + 1, sentences + 1) - 1, start + 1)
        for at in range(ends[start], ends[stop], target):
            cuts += at, min(at + target, ends[stop]), 0, 0, target
        start = stop


def _random_next(pool: Pool, row: Ints, draws: npt.NDArray[np.float64], target: Ints) -> tuple[Ints, Ints, Ints]:
    """Rows, starts and ends of random segments B from other documents than `row` [N]; each other document is equally
    likely, then each of its sentences as the first."""
    other = counter_random.below(draws[:, 0], len(pool) - 1)
    other += other >= row
    first, end = pool.first_sentence[other], pool.end_sentence[other]
    sentence = first + counter_random.below(draws[:, 1], end - first)
    start = pool.sentence_ends[sentence]
    last = np.searchsorted(pool.sentence_ends, start + np.maximum(target, 1))
    return other, start, pool.sentence_ends[np.minimum(last, end)]


def _truncate(pairs: SegmentPairs, room: int) -> SegmentPairs:
    """Shortens each pair to `room` tokens as google's `truncate_seq_pair`: one token at a time from the longer side (B
    where they are equal), each from the front or the back with equal chance."""
    a, b = pairs.a_end - pairs.a_start, pairs.b_end - pairs.b_start
    excess = np.maximum(a + b - room, 0)
    long = np.flatnonzero(excess)
    if not len(long):
        return pairs
    a, b, excess, keys = a[long], b[long], excess[long], pairs.key[long]
    from_a = np.minimum(excess, np.maximum(a - b, 0))
    from_b = np.minimum(excess, np.maximum(b - a, 0))
    rest = excess - from_a - from_b  # taken in turn once the sides are equal, beginning with B
    from_a, from_b = from_a + rest // 2, from_b + (rest + 1) // 2
    front_a, front_b = _heads(keys, _TRUNCATION, from_a), _heads(keys, 2 * _TRUNCATION, from_b)
    shorter = dataclasses.replace(
        pairs, **{n: getattr(pairs, n).copy() for n in ("a_start", "a_end", "b_start", "b_end")}
    )
    shorter.a_start[long] += front_a
    shorter.a_end[long] -= from_a - front_a
    shorter.b_start[long] += front_b
    shorter.b_end[long] -= from_b - front_b
    return shorter


_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.int64)


def _heads(keys: Keys, purpose: np.uint64, tosses: Ints) -> Ints:
    """Heads among `tosses` fair coins for each key."""
    heads = np.zeros(len(keys), np.int64)
    for word in range(-(-int(tosses.max(initial=0)) // 64)):
        left = np.flatnonzero(tosses > 64 * word)
        drawn = counter_random.bits(keys[left], purpose + np.uint64(word))
        unused = np.maximum(64 - (tosses[left] - 64 * word), 0).astype(np.uint64)
        drawn >>= unused
        heads[left] += _ONES[drawn.view(np.uint8).reshape(-1, 8)].sum(axis=1)
    return heads


def assemble(tokens: npt.NDArray[np.integer], pairs: SegmentPairs, length: int, cls_id: int, sep_id: int, pad_id: int):
    """`[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` where B is empty.

    Returns int32 input_ids [N, L], input_mask [N, L], segment_ids [N, L].
    """
    a = (pairs.a_end - pairs.a_start).astype(np.int32)[:, None]
    b = (pairs.b_end - pairs.b_start).astype(np.int32)[:, None]
    column = np.arange(length, dtype=np.int32)
    end_a = 1 + a  # position of the first [SEP]
    total = end_a + 1 + b + (b > 0)
    in_b = column > end_a
    offsets = np.int32 if len(tokens) < 1 << 30 else np.int64
    shift_a, shift_b = pairs.a_start[:, None] - 1, pairs.b_start[:, None] - end_a - 1
    source = np.where(in_b, shift_b.astype(offsets), shift_a.astype(offsets))
    source += column
    real = column < total
    input_ids = tokens.take(source, mode="clip")
    input_ids[~real] = pad_id
    rows = np.arange(len(pairs))
    input_ids[rows, end_a[:, 0]] = input_ids[rows, total[:, 0] - 1] = sep_id
    input_ids[:, 0] = cls_id
    return input_ids, real.astype(np.int32), (in_b & real).astype(np.int32)
