"""WordPiece vocabularies: learning, the file and its checks."""

from collections.abc import Callable, Mapping

from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.settings import VocabularySettings
from preprocessing.vocab_file import check
from preprocessing.vocabulary import merging


def learn(
    counts: Mapping[str, int], settings: VocabularySettings, report: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Vocabulary of exactly `settings.size` tokens: the special ones, the alphabet, merged pieces; and, where the words
    give no more pieces, `[unused1]` and so on. The same for the same counts, in whatever order they come."""
    room = settings.size - len(SPECIAL_TOKENS)
    words = merging.choose_words(counts)
    if not words:
        raise InputError("a vocabulary needs words to learn from. Received: none; is the input text?")
    alphabet = merging.choose_alphabet(words, room)
    pieces = merging.merge_pairs(words, alphabet, room, report)
    unused = [f"[unused{number}]" for number in range(1, room - len(pieces) + 1)]
    return check([*SPECIAL_TOKENS, *pieces, *unused], "the learned vocabulary")
