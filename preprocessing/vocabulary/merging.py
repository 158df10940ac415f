"""Learning WordPiece pieces from word counts, by merging pairs as byte pair encoding does.

Every word starts as its characters (`w ##o ##r ##d`); the commonest pair of neighbours, over all words with their
counts, becomes one piece, until there are enough. (Sennrich et al. 2016, section 3; with `##` forms as Hugging Face's
WordPiece trainer has it.) Nothing depends on the order of a dictionary or on threads: words are sorted, pieces numbered
as they come, and **of equally common pairs the one with the smaller numbers (left, then right) goes first**, so that
the same counts give the same pieces, byte for byte.

All words lie behind one another in arrays; a merge is a few array operations on the places where the pair stands, and
changes the counts of the pairs around them only.
"""

import heapq
from collections.abc import Callable, Mapping

import numpy as np

CONTINUATION = "##"
MAX_WORD_CHARACTERS = 200  # longer words are unknown to the tokenizer
# A bound on memory (1 GB or so): rarer words than these hardly move a count.
MAX_WORDS = 1_000_000
# The commonest characters that make up this share of the text come before any longer piece.
CHARACTER_COVERAGE = 0.9995


def choose_words(counts: Mapping[str, int], limit: int = MAX_WORDS) -> list[tuple[str, int]]:
    """The words to learn from, commonest first, equally common ones in the order of their code points."""
    words = [(word, count) for word, count in counts.items() if count > 0 and 0 < len(word) <= MAX_WORD_CHARACTERS]
    return sorted(words, key=lambda item: (-item[1], item[0]))[:limit]


def choose_alphabet(words: list[tuple[str, int]], room: int) -> list[str]:
    """Single-character pieces, sorted: the commonest that make up 99.95 % of the text, and the next commonest as far as
    the alphabet fills no more than an eighth of the room."""
    counts: dict[str, int] = {}
    for word, count in words:
        for place, character in enumerate(word):
            form = CONTINUATION + character if place else character
            counts[form] = counts.get(form, 0) + count
    ranked = sorted(counts, key=lambda form: (-counts[form], form))
    covered = np.cumsum([counts[form] for form in ranked])
    needed = int(np.searchsorted(covered, CHARACTER_COVERAGE * covered[-1])) + 1 if ranked else 0
    return sorted(ranked[: min(max(needed, room // 8), room)])


def merge_pairs(
    words: list[tuple[str, int]], alphabet: list[str], room: int, report: Callable[[int], None] = lambda _: None
) -> list[str]:
    """At most `room` pieces: the alphabet, then merged pieces in the order in which they were found.

    `report` is called with the number of pieces, now and then.
    """
    pieces = list(alphabet)
    numbers = {piece: number for number, piece in enumerate(pieces)}
    symbol, following, weight = _lay_out(words, numbers)
    preceding = np.full_like(following, -1)
    inside = np.flatnonzero(following >= 0)
    preceding[following[inside]] = inside

    pair_counts: dict[int, int] = {}
    places: dict[int, list[np.ndarray]] = {}
    heap: list[tuple[int, int]] = []

    def add(edges: np.ndarray) -> None:
        """Counts the pairs that begin at these places."""
        for key, total, where in _group(edges, symbol, following, weight):
            count = pair_counts.get(key, 0) + total
            pair_counts[key] = count
            places.setdefault(key, []).append(where)
            heapq.heappush(heap, (-count, key))

    def remove(edges: np.ndarray) -> None:
        for key, total, _ in _group(edges, symbol, following, weight):
            pair_counts[key] -= total

    add(inside)
    while len(pieces) < room and heap:
        count, key = heapq.heappop(heap)
        now = pair_counts.get(key, 0)
        if -count != now:  # an older entry; its pair has become rarer, or commoner and has a newer entry
            if 0 < now < -count:
                heapq.heappush(heap, (-now, key))
            continue
        if now <= 0:
            break
        left, right = key >> 32, key & 0xFFFFFFFF
        # Places may be listed twice, or have been merged into something else since.
        first = np.unique(np.concatenate(places.pop(key)))
        first = first[(symbol[first] == left) & (following[first] >= 0)]
        first = first[symbol[following[first]] == right]
        if left == right:
            first = _every_other(first, following)
        second = following[first]
        before, after = preceding[first], following[second]
        has_after = after >= 0
        remove(np.unique(np.concatenate([before[before >= 0], first, second[has_after]])))

        piece = pieces[left] + pieces[right].removeprefix(CONTINUATION)
        number = numbers.get(piece)
        if number is None:  # else the same string was merged from other parts before
            number = numbers[piece] = len(pieces)
            pieces.append(piece)
            if len(pieces) % 256 == 0:
                report(len(pieces))
        symbol[first] = number
        symbol[second] = -1
        following[first] = after
        preceding[after[has_after]] = first[has_after]
        before = preceding[first]  # again: the second of one may have been before the first of another
        add(np.unique(np.concatenate([before[before >= 0], first[has_after]])))
        if left != right and not pair_counts[key]:
            del pair_counts[key]
    return pieces


def _lay_out(words, numbers):
    """Symbol int32, next place int32 (-1 at a word's end) and count of the word int64, for each character of all words
    that have no other characters than those numbered."""
    symbols: list[int] = []
    lengths: list[int] = []
    counts: list[int] = []
    heads = {piece: number for piece, number in numbers.items() if not piece.startswith(CONTINUATION) or piece == "#"}
    tails = {piece[2:]: number for piece, number in numbers.items() if len(piece) == 3 and piece[:2] == CONTINUATION}
    for word, count in words:
        try:
            numbered = [heads[word[0]], *map(tails.__getitem__, word[1:])]
        except KeyError:
            continue
        symbols += numbered
        lengths.append(len(word))
        counts.append(count)
    following = np.arange(1, len(symbols) + 1, dtype=np.int32)
    following[np.cumsum(lengths, dtype=np.int64) - 1] = -1
    return np.array(symbols, np.int32), following, np.repeat(np.array(counts, np.int64), lengths)


def _group(edges, symbol, following, weight):
    """(pair, total count, its places) for each different pair among those that begin at `edges`, ascending."""
    if not len(edges):
        return
    # Pairs as one number: the left piece above the right one.
    keys = symbol[edges].astype(np.int64) << 32 | symbol[following[edges]]
    order = np.argsort(keys, kind="stable")
    keys, edges = keys[order], edges[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    totals = np.add.reduceat(weight[edges], starts)
    yield from zip(keys[starts].tolist(), totals.tolist(), np.split(edges, starts[1:]), strict=True)


def _every_other(first, following):
    """Of a run of overlapping pairs (`aaaa`), the first, the third and so on. `first` is ascending."""
    if not len(first):
        return first
    begins = np.concatenate([[True], following[first[:-1]] != first[1:]])
    index = np.arange(len(first))
    return first[(index - np.maximum.accumulate(np.where(begins, index, 0))) % 2 == 0]
