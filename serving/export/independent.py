"""Another reading of a folder's tokenizer files, in plain Python and straight from them, to compare ids with.

It shares nothing with `preprocessing.tokenizer` or `model.checkpoints`: what both get wrong alike, they got wrong by
themselves. Slow, and by the Unicode of the Python that runs; for some texts at export.
"""

import json
import pathlib
import re
import unicodedata
from typing import NamedTuple

_CJK = "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]"


class Reading(NamedTuple):
    vocab: dict[str, int]
    lower_case: bool
    longest: int
    raw: dict[str, int]  # added tokens, looked for in the text as it is
    folded: dict[str, int]  # and in the normalized text
    unknown: int

    def ids(self, text: str) -> list[int]:
        found: list[int] = []
        for piece, token in _cut(text, self.raw):
            found += [token] if token is not None else self._of_normalized(self._normalized(piece))
        return found

    def _of_normalized(self, text: str) -> list[int]:
        found: list[int] = []
        folded = {self._normalized(token): number for token, number in self.folded.items()}
        for piece, token in _cut(text, folded):
            words = [] if token is not None else re.sub(f"({_CJK})", r" \1 ", piece).split()
            found += (
                [token]
                if token is not None
                else [i for word in words for part in _parts(word) for i in self._word(part)]
            )
        return found

    def _normalized(self, text: str) -> str:
        kept = (c for c in text if c in "\t\n\r" or (unicodedata.category(c) not in ("Cc", "Cf") and c != "\ufffd"))
        text = "".join(kept)
        if not self.lower_case:
            return text
        lowered = unicodedata.normalize("NFD", text.lower())
        return "".join(c for c in lowered if unicodedata.category(c) != "Mn")

    def _word(self, word: str) -> list[int]:
        found, start = [], 0
        while start < len(word):
            lengths = range(len(word), start, -1)
            pieces = (("##" if start else "") + word[start:end] for end in lengths)
            end = next((end for end, piece in zip(lengths, pieces, strict=True) if piece in self.vocab), None)
            if end is None or len(word) > self.longest:
                return [self.unknown]
            found.append(self.vocab[("##" if start else "") + word[start:end]])
            start = end
        return found


def read(folder: pathlib.Path, lower_case: bool) -> Reading | None:
    """Of `tokenizer.json`, else of Hugging Face's other files; None without them."""
    try:
        if (folder / "tokenizer.json").is_file():
            return _fast(json.loads((folder / "tokenizer.json").read_text("utf-8-sig")), lower_case)
        if (folder / "vocab.txt").is_file() and (folder / "tokenizer_config.json").is_file():
            return _slow(folder, lower_case)
    except (ValueError, KeyError, TypeError, AttributeError):  # what cannot be read is told by who reads it for use
        return None
    return None


def _fast(config: dict, lower_case: bool) -> Reading:
    model = config["model"]
    vocab = {token: number for token, number in model["vocab"].items() if token}
    added = [token for token in config.get("added_tokens") or [] if token["content"] not in _specials(vocab, model)]
    raw = {token["content"]: token["id"] for token in added if not token.get("normalized")}
    folded = {token["content"]: token["id"] for token in added if token.get("normalized")}
    longest = model.get("max_input_chars_per_word", 100)
    return Reading(vocab, lower_case, longest, raw, folded, vocab[model.get("unk_token", "[UNK]")])


def _specials(vocab: dict[str, int], model: dict) -> set[str]:
    names = {"[PAD]", "[CLS]", "[SEP]", "[MASK]", model.get("unk_token", "[UNK]")}
    return names | {name.lower() for name in names} | {token for token in vocab if re.fullmatch("</?[a-z]+>", token)}


def _slow(folder: pathlib.Path, lower_case: bool) -> Reading:
    lines = (folder / "vocab.txt").read_bytes().decode("utf-8-sig").split("\n")
    vocab = {line.strip(" \t\r"): number for number, line in enumerate(lines) if line.strip(" \t\r")}
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8-sig"))
    specials = _specials(vocab, {})
    decoder = (config.get("added_tokens_decoder") or {}).items()
    listed = {token["content"]: (int(number), bool(token.get("normalized"))) for number, token in decoder}
    if (folder / "added_tokens.json").is_file():
        special = (
            json.loads((folder / "special_tokens_map.json").read_text("utf-8-sig"))
            if (folder / "special_tokens_map.json").is_file()
            else {}
        )
        exact = json.dumps(special.get("additional_special_tokens", []), ensure_ascii=False)
        for token, number in json.loads((folder / "added_tokens.json").read_text("utf-8-sig")).items():
            listed.setdefault(token, (number, json.dumps(token, ensure_ascii=False) not in exact))
    listed = {token: found for token, found in listed.items() if token not in specials}
    vocab |= {token: number for token, (number, _) in listed.items()}
    raw = {token: number for token, (number, normalized) in listed.items() if not normalized}
    folded = {token: number for token, (number, normalized) in listed.items() if normalized}
    return Reading(vocab, lower_case, 100, raw, folded, vocab.get("[UNK]", vocab.get("[unk]", -1)))


def _cut(text: str, tokens: dict[str, int]):
    """(piece of text, None) and ("", id of the token between two pieces), the longest token first."""
    pattern = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    for piece in re.split(f"({pattern})", text) if pattern else [text]:
        yield ("", tokens[piece]) if piece in tokens else (piece, None)


def _parts(word: str) -> list[str]:
    """A word cut at each punctuation character."""
    parts: list[str] = []
    for c in word:
        sign = unicodedata.category(c).startswith("P") or (c.isascii() and c.isprintable() and not c.isalnum())
        if sign or not parts or parts[-1][-1:] == "\0":
            parts.append(c + "\0" if sign else c)
        else:
            parts[-1] += c
    return [part.rstrip("\0") for part in parts]
