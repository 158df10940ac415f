"""Which models answer which signatures of an export: one, or several that were tuned from the same encoder."""

import dataclasses
import os
from collections.abc import Callable, Sequence

from model import checkpoints
from model.checkpoints import names
from model.encoder.smaller import WHOLE, Kept, smaller
from preprocessing.errors import InputError, require
from serving.export import text_rules
from serving.settings import ExportSettings
from serving.signatures.base import Signature, TextEncoder
from serving.signatures.stored_encoder import Pool

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Named:
    """A checkpoint. What its task answers is called after its name, NAME_classify, or without one as ever."""

    path: str
    name: str = ""

    @classmethod
    def read(cls, text: str) -> "Named":
        """CHECKPOINT, or NAME=CHECKPOINT. A file of that name is one."""
        name, sign, path = text.partition("=")
        if not sign or os.path.exists(text):
            return cls(text)
        good = name.isascii() and name.isidentifier()
        require(good, "NAME of --model NAME=CHECKPOINT must be of A-Z a-z 0-9 _, and begin with none of 0-9", name)
        return cls(path, name)


@dataclasses.dataclass(frozen=True)
class Part:
    """A model of an export, with the signatures that it answers and, by name, why it does not answer others that it
    might have."""

    path: str
    texts: TextEncoder
    signatures: Sequence[Signature]
    left_out: dict[str, str]

    @classmethod
    def of(cls, path: str, texts: TextEncoder, wanted: Sequence[Signature], name: str = "") -> "Part":
        reasons = {signature.name: signature.missing(texts) for signature in wanted}
        there = [signature for signature in wanted if reasons[signature.name] is None]
        # What is for another task than its own is not missed.
        missed = [signature for signature in wanted if signature.kind in (None, texts.kind)]
        left_out = {s.name: reason for s in missed if (reason := reasons[s.name]) is not None}
        called = [
            dataclasses.replace(s, name=f"{name}_{s.name}") if name and s.kind == texts.kind else s for s in there
        ]
        return cls(path, texts, called, left_out)


def read(
    models: Sequence[Named],
    settings: ExportSettings,
    vocab_path: str | os.PathLike | None,
    lower_case: bool | None,
    signatures: Sequence[Signature],
    report: Report,
    kept: Kept = WHOLE,
) -> list[Part]:
    """The models of an export, with what is `kept` of each. What no task answers is the first one's; of the others the
    tasks count alone.

    Raises InputError for a model without a vocabulary or whose texts would be read otherwise than it asks for; and for
    several where a vocabulary or all weights differ, a model has no task, or two answer signatures of the same name.
    """
    pool: Pool | None = {} if len(models) > 1 else None
    parts: list[Part] = []
    for model in models:
        report(f"loading {model.path}")
        found = checkpoints.read(model.path)
        if not parts and settings.embedding == "pooler":
            has_one = any(names.part_of(name) == names.POOLER for name in found.arrays)
            if not has_one:
                raise InputError(f'{model.path}: has no pooler; export it with the embedding "mean"')
        tokenizer = text_rules.tokenizer_of(model.path, vocab_path, lower_case, report)
        encoder, task = smaller(checkpoints.build(found, report=report), kept), checkpoints.read_task(model.path)
        if kept.tokens is not None:
            tokenizer = tokenizer.with_tokens(kept.tokens)
        texts = TextEncoder(encoder, tokenizer, settings, task, pool)
        wanted = [one for one in signatures if not parts or one.kind == texts.kind]
        part = Part.of(model.path, texts, wanted, model.name)
        if parts:
            _check(parts, part)
        parts.append(part)
    return parts


def _check(parts: Sequence[Part], part: Part) -> None:
    """That a model can stand beside those before it."""
    first, alone = parts[0], "; export it by itself, a server takes several models"
    mine, theirs = (
        (one.vocab, one.lower_case, one.added, one.longest_word)
        for one in (part.texts.tokenizer, first.texts.tokenizer)
    )
    if mine != theirs:
        raise InputError(f"{part.path}: models in one export must have one vocabulary, that of {first.path}{alone}")
    if not part.signatures:
        raise InputError(f"{part.path}: a model beside another must answer a task. Received: {part.texts.kind}")
    own = {id(variable) for variable in part.texts.model.own}
    if all(id(variable) in own for variable in part.texts.model.variables if len(variable.shape) > 1):
        raise InputError(
            f"{part.path}: models in one export must share weights, and none is like one of {first.path}; tune both "
            f"from one checkpoint with --tune head, lora or bias{alone}"
        )
    for other in parts:
        taken = {signature.name for signature in other.signatures} & {signature.name for signature in part.signatures}
        if taken:
            example = sorted(taken)[0]
            raise InputError(
                f"{part.path}: {', '.join(sorted(taken))} is answered by {other.path}, too; give names: "
                f"--model first={other.path} --model second={part.path} has first_{example} and second_{example}"
            )
