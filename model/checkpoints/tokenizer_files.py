"""What a checkpoint says of how its text becomes ids, whichever files say it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

GOOGLES_LONGEST_WORD = 200


@dataclasses.dataclass(frozen=True)
class CheckpointTokenizer:
    """
    Attributes:
        tokens: by id, the special ones under their usual names; None where there is no vocabulary. The last of several
            equal ones counts, as google and Hugging Face have it; an empty one is never given.
        lower_case: whether text is lower-cased (and accents dropped); None where nothing tells.
        added: tokens that are one id wherever a text has them. True: only as they are spelled; False: in whatever case
            and with whatever accents the tokenizer reads over.
        longest_word: in characters; a longer one is unknown.
        unlike: what is asked for and BERT's tokenizer does not do, in lines that begin with the file.
    """

    tokens: Sequence[str] | None = None
    lower_case: bool | None = None
    added: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    longest_word: int = GOOGLES_LONGEST_WORD
    unlike: Sequence[str] = dataclasses.field(default_factory=list)

    def stated(self) -> dict:
        """What a configuration says beside the vocabulary and the lower-casing, as far as it is not google's."""
        found = {"added_tokens": dict(self.added), "longest_word": self.longest_word, "unlike": list(self.unlike)}
        return {key: value for key, value in found.items() if value and value != GOOGLES_LONGEST_WORD}

    def with_stated(self, config: Mapping) -> "CheckpointTokenizer":
        """With what `stated` wrote into a configuration."""
        added, longest, unlike = (config.get(key) for key in ("added_tokens", "longest_word", "unlike"))
        return dataclasses.replace(
            self,
            added=added if isinstance(added, dict) else {},
            longest_word=longest if type(longest) is int else GOOGLES_LONGEST_WORD,
            unlike=unlike if isinstance(unlike, list) else [],
        )


def unlike_rule(place: object, key: str, value: object) -> str:
    return f"{place}: {key} {json.dumps(value)} is dropped; the text is tokenized without it"
