"""What a Hugging Face folder says of its tokenizer: in `tokenizer.json` (all that transformers 5 writes), or in
`vocab.txt` and the JSON files around it.

A fast tokenizer is a chain of parts with parameters. BERT's is read here; whatever else a file asks for is named.
"""

import pathlib
from collections.abc import Mapping

from model.checkpoints.configs import read_json
from model.checkpoints.tokenizer_files import CheckpointTokenizer, unlike_rule
from model.checkpoints.vocabularies import read_vocab
from preprocessing.errors import InputError
from preprocessing.features import CLS, MASK, PAD, SEP, UNK
from preprocessing.vocab_file import ids, infer_lower_case, with_usual_names

CONFIG, TOKENIZER_CONFIG, FAST, VOCAB = "config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt"
ADDED, SPECIAL = "added_tokens.json", "special_tokens_map.json"
LONGEST_WORD = 100  # unless tokenizer.json says otherwise
# ELECTRA's and DistilBERT's are BERT's under other names; the last two say nothing by themselves.
CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "PreTrainedTokenizer", "TokenizersBackend")
NAMES = {PAD: "pad_token", UNK: "unk_token", CLS: "cls_token", SEP: "sep_token", MASK: "mask_token"}
RULES = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "do_basic_tokenize", "never_split")
TEMPLATES = {"single": f"{CLS}0 A0 {SEP}0", "pair": f"{CLS}0 A0 {SEP}0 B1 {SEP}1"}


def read_tokenizer(folder: pathlib.Path) -> CheckpointTokenizer:
    """Raises InputError for files that cannot be read, or that contradict themselves."""
    stated, special = _json(folder / TOKENIZER_CONFIG), _json(folder / SPECIAL)
    unlike = list(_other_classes(folder, stated))
    names = {usual: _content(stated.get(key) or special.get(key)) or usual for usual, key in NAMES.items()}
    rules: dict = {}
    tokens = read_vocab(folder / VOCAB) if (folder / VOCAB).is_file() else None
    added, longest = _added(folder, stated | special, unlike), LONGEST_WORD
    if (folder / FAST).is_file():
        fast = _Fast(folder / FAST, names)
        unlike += _differing(folder, tokens or [], fast.tokens or [])
        tokens, longest, added = fast.tokens or tokens, fast.longest_word, fast.added | added
        rules |= fast.rules
        unlike += fast.unlike
    # What the configuration says holds before what the fast tokenizer was saved with, as in transformers.
    rules |= {key: stated[key] for key in RULES if stated.get(key) is not None}
    lower_case = rules.get("do_lower_case")
    if tokens is not None:
        tokens = with_usual_names(_with_added(tokens, added, unlike, folder), names)
        lower_case = lower_case if isinstance(lower_case, bool) else infer_lower_case(tokens)
    usual: dict = {"strip_accents": lower_case, "never_split": []}
    usual |= dict.fromkeys(("tokenize_chinese_chars", "do_basic_tokenize", "clean_text"), True)
    unlike += [
        unlike_rule(folder / (TOKENIZER_CONFIG if key in stated else FAST), key, rules[key])
        for key, value in usual.items()
        if rules.get(key) is not None and rules[key] != value
    ]
    kept = {token: exact for token, (_, exact) in added.items() if token not in {*names, *names.values()}}
    return CheckpointTokenizer(tokens, lower_case if isinstance(lower_case, bool) else None, kept, longest, unlike)


def _json(path: pathlib.Path) -> dict:
    return read_json(path) if path.is_file() else {}


def _content(token: object) -> str | None:
    """A special token is written as a string, or as an object."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _other_classes(folder: pathlib.Path, stated: Mapping):
    for name, config in ((CONFIG, _json(folder / CONFIG)), (TOKENIZER_CONFIG, stated)):
        kind = config.get("tokenizer_class")
        if kind is not None and str(kind).removesuffix("Fast") not in CLASSES:
            yield f"{folder / name}: tokenizer_class must be BertTokenizer or BertTokenizerFast. Received: {kind!r}"


def _added(folder: pathlib.Path, stated: Mapping, unlike: list[str]) -> dict[str, tuple[int | None, bool]]:
    """Added tokens, each with its id, if that is stated, and whether it counts only as it is spelled."""
    special = [stated.get(key) for key in ("additional_special_tokens", "extra_special_tokens")]
    exact = {_content(token) for tokens in special if isinstance(tokens, list) for token in tokens}
    found: dict[str, tuple[int | None, bool]] = dict.fromkeys(sorted(filter(None, exact)), (None, True))
    for token, number in _json(folder / ADDED).items():
        found[token] = (number if type(number) is int else None, token in exact)
    decoder = stated.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        found |= _listed(folder / TOKENIZER_CONFIG, number, token, unlike)
    return found


def _listed(path: pathlib.Path, number: object, token: object, unlike: list[str]) -> dict[str, tuple[int | None, bool]]:
    content = _content(token)
    if content is None or not isinstance(token, dict) or not str(number).isdecimal():
        raise InputError(f"{path}: an added token must have an id and a content. Received: {number!r}: {token!r}")
    if not content.strip():
        unlike.append(f"{path}: an added token must have letters or signs. Received: {content!r}")
    if token.get("single_word"):
        unlike.append(f"{path}: single_word must be false. Received: true, for the added token {content!r}")
    return {content: (int(str(number)), not token.get("normalized", False))}


def _with_added(tokens, added, unlike: list[str], folder: pathlib.Path) -> list[str]:
    """The vocabulary with the added tokens at their ids; one without an id that is not there yet comes last."""
    tokens = list(tokens)
    for token, (number, _) in sorted(added.items(), key=lambda item: (item[1][0] is None, item[1][0])):
        if number is None:
            number = ids(tokens).get(token, len(tokens))
        tokens += [""] * (number + 1 - len(tokens))
        if tokens[number] not in ("", token):
            unlike.append(f"{folder}: id {number} must be one token. Received: {tokens[number]!r} and {token!r}")
        else:
            tokens[number] = token
    return tokens


def _differing(folder: pathlib.Path, tokens: list[str], fast: list[str]) -> list[str]:
    """That two files give a token different ids; the last of several equal ones counts."""
    ours, theirs = ids(tokens), ids(fast)
    differing = next((token for token in ours if theirs and theirs.get(token) != ours[token]), None)
    if differing is None:
        return []
    return [
        f"{folder}: {VOCAB} and {FAST} must say the same; remove the one that is not the model's. Received: "
        f"{ours[differing]} and {theirs.get(differing)} as the id of {differing!r}"
    ]


class _Fast:
    """A tokenizer.json: `tokens` by id (None where it is of another kind), `added`, `rules` as tokenizer_config.json
    calls them, `longest_word`, and `unlike`."""

    def __init__(self, path: pathlib.Path, names: Mapping[str, str]):
        config = read_json(path)
        self._path, self._usual = path, {actual: usual for usual, actual in names.items()}
        self.tokens: list[str] | None = None
        self.rules: dict = {}
        self.unlike: list[str] = []
        self.longest_word = LONGEST_WORD
        self._read_model(_part(config, "model"))
        normalizer = self._expect("normalizer", _part(config, "normalizer"), "BertNormalizer")
        self.rules = {
            "do_lower_case": normalizer.get("lowercase", True),
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
            "clean_text": normalizer.get("clean_text", True),
        }
        self._expect("pre_tokenizer", _part(config, "pre_tokenizer"), "BertPreTokenizer")
        self._read_template(_part(config, "post_processor"))
        listed = config.get("added_tokens")
        self.added: dict[str, tuple[int | None, bool]] = {}
        for token in listed if isinstance(listed, list) else []:
            self.added |= _listed(path, token.get("id") if isinstance(token, dict) else None, token, self.unlike)

    def _expect(self, name: str, part: dict, kind: str) -> dict:
        if part.get("type") != kind:
            self.unlike.append(f"{self._path}: {name} must be {kind}. Received: {part.get('type')!r}")
            return {}
        return part

    def _read_model(self, model: dict) -> None:
        if "type" not in model and "max_input_chars_per_word" in model:  # of the first versions
            model = model | {"type": "WordPiece"}
        model = self._expect("model", model, "WordPiece")
        vocab = model.get("vocab")
        if not isinstance(vocab, dict):
            return
        numbers = list(vocab.values())
        if not all(type(number) is int and 0 <= number < 10 * len(numbers) for number in numbers):
            raise InputError(f"{self._path}: the vocabulary's ids must be whole numbers from 0 on, without large gaps")
        self.tokens = [""] * (max(numbers, default=-1) + 1)
        for token, number in vocab.items():
            self.tokens[number] = token
        longest = model.get("max_input_chars_per_word", LONGEST_WORD)
        self.longest_word = longest if type(longest) is int else LONGEST_WORD
        if (prefix := model.get("continuing_subword_prefix", "##")) != "##":
            self.unlike.append(f"{self._path}: continuing_subword_prefix must be '##'. Received: {prefix!r}")

    def _read_template(self, processor: dict) -> None:
        if processor.get("type") == "BertProcessing":
            return
        processor = self._expect("post_processor", processor, "TemplateProcessing")
        for name, wanted in TEMPLATES.items():
            pieces = processor.get(name)
            found = " ".join(map(self._piece, pieces)) if isinstance(pieces, list) else ""
            if processor and found != wanted:
                rule = f"{self._path}: post_processor must make a {name} of texts {wanted} (each with its segment)"
                self.unlike.append(f"{rule}. Received: {found}")

    def _piece(self, piece: object) -> str:
        ((_, piece),) = piece.items() if isinstance(piece, dict) and len(piece) == 1 else ((None, None),)
        if not isinstance(piece, dict):
            return "?"
        return f"{self._usual.get(str(piece.get('id')), piece.get('id'))}{piece.get('type_id', 0)}"


def _part(config: Mapping, name: str) -> dict:
    """A part of the chain; a sequence of one is that one."""
    part = config.get(name)
    inner = part.get(f"{name}s", part.get("processors")) if isinstance(part, dict) else None
    if isinstance(part, dict) and part.get("type") == "Sequence" and isinstance(inner, list) and len(inner) == 1:
        part = inner[0]
    return part if isinstance(part, dict) else {}
