"""How a checkpoint's texts are read and made one vector, as its own files say it, and whether that is what is done."""

import os
import pathlib
from collections.abc import Callable, Mapping

from model import checkpoints
from model.settings import SimilaritySettings
from preprocessing import vocab_file
from preprocessing.errors import InputError
from preprocessing.tokenizer import BertTokenizer
from serving.export import independent
from serving.settings import ExportSettings
from serving.signatures.base import GOLDEN_TEXTS

Report = Callable[[str], None]


def tokenizer_of(
    checkpoint: str | os.PathLike,
    vocab_path: str | os.PathLike | None,
    lower_case: bool | None,
    report: Report = lambda line: None,
) -> BertTokenizer:
    """The checkpoint's tokenizer. A vocabulary that is named counts instead of its own, with BERT's own rules.

    Raises InputError for a checkpoint that has none, or asks for what BERT's tokenizer does not do; and where another
    reading of its files gives other ids.
    """
    said = checkpoints.tokenizer(checkpoint)
    if vocab_path is not None:
        tokens = vocab_file.load(vocab_path)
        stated = said.lower_case if said.tokens is None else None
        said = checkpoints.CheckpointTokenizer(
            tokens, vocab_file.infer_lower_case(tokens) if stated is None else stated
        )
    if said.tokens is None:
        raise InputError(f"{checkpoint}: no vocabulary beside the checkpoint; name one with --vocab")
    if said.unlike:
        raise InputError(
            f"{checkpoint}: BERT's tokenizer would read its texts otherwise; --vocab, with --cased or --lower-case, "
            f"has it do so all the same. Received: {'; '.join(said.unlike)}"
        )
    lower_case = said.lower_case is not False if lower_case is None else lower_case
    if lower_case and vocab_file.infer_lower_case(said.tokens) is False:
        report("texts are lower-cased; the vocabulary has capitals, accents or Korean syllables, which they never have")
    report(f"{'uncased' if lower_case else 'cased'} vocabulary of {len(said.tokens)} tokens")
    if said.added:
        report(f"added tokens: {', '.join(said.added)}")
    tokenizer = BertTokenizer(said.tokens, lower_case, added=said.added, longest_word=said.longest_word)
    if vocab_path is None:
        _compare(checkpoints.folder(checkpoint), tokenizer, list(said.added))
    return tokenizer


def _compare(folder: pathlib.Path, tokenizer: BertTokenizer, added: list[str]) -> None:
    """With an independent reading of the folder's own files, where it has such."""
    other = independent.read(folder, tokenizer.lower_case)
    if other is None:
        return
    words = [token.removeprefix("##") for token in tokenizer.vocab if token.isprintable()]
    chosen = words[:: max(1, len(words) // 500)]
    texts = [*GOLDEN_TEXTS[:3], GOLDEN_TEXTS[-1], " ".join(chosen), " ".join(chosen).upper(), "x" * 150, *added]
    texts += [f"a{token}b {token.upper()}" for token in added]
    for text, ids in zip(texts, tokenizer.tokenize(texts).to_list(), strict=True):
        if (expected := other.ids(text)) != ids:
            place = next(
                i for i, pair in enumerate(zip([*expected, None], [*ids, None], strict=False)) if pair[0] != pair[1]
            )
            raise InputError(
                f"{folder}: its tokenizer's files must give the ids that are served. Received: from {place} on "
                f"{expected[place : place + 5]} there, {ids[place : place + 5]} here, for {text[:60]!r}"
            )


def settings_of(checkpoint: str | os.PathLike, given: Mapping, report: Report = lambda line: None) -> ExportSettings:
    """The settings that are given; what is not, as a folder of sentence-transformers says, else by default."""
    task = checkpoints.read_task(checkpoint)
    if isinstance(task, SimilaritySettings) and given.get("embedding", task.pooling) != task.pooling:
        rule = f"{checkpoint}: it was tuned for similarity by the embedding {task.pooling}; leave --embedding out"
        raise InputError(f"{rule}. Received: {given['embedding']}")
    said = checkpoints.sentences(checkpoint)
    if said is None:
        return ExportSettings(**given)
    for line in said.unlike:
        report(line)
    if "embedding" not in given and not said.whole:
        raise InputError(
            f"{checkpoint}: its vectors cannot be made here; name an --embedding to serve others. "
            f"Received: {'; '.join(said.unlike) or 'no pooling'}"
        )
    found: dict = {"embedding": said.pooling, "unit_length": said.unit_length, "max_seq_length": said.max_seq_length}
    found = {name: value for name, value in found.items() if value is not None}
    shown = ", ".join(f"{name} {value}" for name, value in found.items() if name not in given)
    report(f"as its sentence-transformers files say: {shown or 'nothing'}")
    return ExportSettings(**{**found, **given})
