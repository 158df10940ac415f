"""How a vocabulary file is taken, as google and Hugging Face do: a token a line, the line's number (from 0) its id.

The last of several equal lines counts, an empty line is an id that is never given, and no way out may move a line.
"""

from collections.abc import Mapping, Sequence

from preprocessing.features import SPECIAL_TOKENS


def with_usual_names(tokens: Sequence[str], names: Mapping[str, str] | None = None) -> list[str]:
    """The vocabulary with the special tokens under BERT's names. `names` says what they are called instead, by the
    usual name; any may stand there in small letters. No id changes."""
    tokens = list(tokens)
    for usual in SPECIAL_TOKENS:
        actual = (names or {}).get(usual, usual)
        actual = actual if actual in tokens else actual.lower()
        if actual != usual and actual in tokens:
            place = len(tokens) - 1 - tokens[::-1].index(actual)
            tokens = ["" if token == usual else token for token in tokens]
            tokens[place] = usual
    return tokens


def ids(tokens: Sequence[str]) -> dict[str, int]:
    """Token -> id, of the tokens that can be given."""
    return {token: number for number, token in enumerate(tokens) if token}
