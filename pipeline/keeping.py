"""What a smaller model keeps of a checkpoint, as options of the commands that write one, and as settings."""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings
from serving.settings import ExportSettings

if TYPE_CHECKING:  # they import TensorFlow
    from model.encoder.smaller import Kept
    from preprocessing.tokenizer import BertTokenizer


@dataclasses.dataclass(frozen=True)
class PartialExport(ExportSettings):
    """How a pipeline exports its model: a part of it where these say so, which is then what its gate judges and what is
    pushed. The checkpoint stays whole."""

    layers: str | None = None  # as `bert export --layers`; of a pretrained model
    tokens_of: tuple[str, ...] = ()  # as `bert export --tokens-of`; of a fine-tuned model


def options(command: Callable) -> Callable:
    """Adds `--layers` and `--tokens-of`, to be given to `kept`."""
    for option in (
        click.option(
            "--tokens-of",
            multiple=True,
            metavar="GLOB",
            help="Of the vocabulary keep what this text has, and what spells any other; read as by `bert vocab`.",
        ),
        click.option(
            "--layers",
            metavar="N|A,B,...",
            help="Which layers are kept, from 0, or how many, evenly (0, 3, 5 of six). For vectors: the "
            "first and last count most. Of a fine-tuned model none can be spared; `bert finetune --layers` drops them "
            "before.",
        ),
    ):
        command = option(command)
    return command


def kept(
    checkpoint: str,
    layers: str | None,
    tokens_of: Sequence[str],
    tell: Callable[[str], None],
    vocab: str | None = None,
    lower_case: bool | None = None,
) -> "Kept":
    """As the options say; `vocab` and `lower_case` as `text_rules.tokenizer_of` takes them. Raises InputError for
    layers that the checkpoint does not have, a tokenizer that is not BERT's, and text that cannot be read."""
    from model import checkpoints
    from model.encoder.smaller import Kept, layers_of

    numbers, tokens = None, None
    if layers is not None:
        known = checkpoints.read(checkpoint).settings.num_layers
        numbers = layers_of(layers, known)
        tell(f"layers {', '.join(map(str, numbers))} (from 0) of {known} are kept")
    if tokens_of:
        from serving.export import text_rules

        tokens = _tokens(tokens_of, text_rules.tokenizer_of(checkpoint, vocab, lower_case), tell)
    return Kept(numbers, tokens)


def _tokens(inputs: Sequence[str], tokenizer: "BertTokenizer", tell: Callable[[str], None]) -> list[int]:
    from preprocessing.beam import runner
    from preprocessing.corpus.inputs import survey
    from preprocessing.vocabulary import counting, pruning

    settings = CorpusSettings(tuple(inputs))
    for line in survey(settings).told():
        tell(line)
    with tempfile.TemporaryDirectory() as folder:
        scratch = os.path.join(folder, "counts")
        *counts, counters = counting.count_corpus(settings, tokenizer.lower_case, scratch, runner.make_options())
    if aside := counters.get("lines_set_aside"):
        tell(f"set aside {aside:,} of {counters['lines']:,} lines")
    words = sorted({word for part in counts for word in part})
    if not words:
        raise InputError(f"--tokens-of must name text. Received: {', '.join(inputs)}, which has no word")
    tokens, found = pruning.needed(tokenizer, words)
    tell(f"{len(tokens):,} of {tokenizer.vocab_size:,} tokens are kept, {found:,} of which the text has")
    return tokens
