"""The part of a vocabulary that a text needs."""

from collections.abc import Sequence

from preprocessing import vocab_file
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.tokenizer import BertTokenizer

_BATCH = 50_000


def needed(tokenizer: BertTokenizer, words: Sequence[str]) -> tuple[list[int], int]:
    """Which tokens to keep for a text of these words: (their ids, ascending; how many of them the text itself has).

    The text's ids then mean the tokens that they meant before. Kept besides, for whatever other text comes, are special
    and added tokens, single characters, and pieces that these cannot spell; so a word of another text is cut into more
    pieces, and is not unknown where it was known. (The one exception: a character that the vocabulary has only within
    longer pieces, behind a word's part that is now cut otherwise.)
    """
    ids = vocab_file.ids(tokenizer.vocab)
    kept = {ids[token] for token in (*SPECIAL_TOKENS, *tokenizer.added) if token in ids}
    kept |= {
        tokenizer.pad_id,
        *(int(number) for number in tokenizer.ordinary_ids if not _spelt(tokenizer, number, ids)),
    }
    found: set[int] = set()
    for start in range(0, len(words), _BATCH):
        found.update(tokenizer.tokenize(words[start : start + _BATCH]).values.numpy().tolist())
    return sorted(kept | found), len(found)


def _spelt(tokenizer: BertTokenizer, number: int, ids) -> bool:
    """Whether other tokens, of one character each, spell this one."""
    token = tokenizer.vocab[number]
    goes_on = token.startswith("##") and len(token) > 2
    first, *more = list(token[2:] if goes_on else token)
    spelling = [f"##{first}" if goes_on else first, *(f"##{letter}" for letter in more)]
    return len(spelling) > 1 and all(one in ids for one in spelling)
