"""What would be said without a model, whatever the text: the commonest of the held-out masked tokens, the commoner
label. A model that has learned nothing says the same."""

import collections
import itertools
from typing import Any

from tfx_bsl.coders.example_coder import ExampleToNumpyDict

from preprocessing import features, storage, tfrecord, vocab_file
from preprocessing.corpus import chunks

_EXAMPLES, _TOKENS = 10_000, 5  # that are read, that are given


def read(folder: str, vocab_path: str) -> dict[str, Any]:
    """Of the first example files in a folder: `tokens`, the commonest masked ones with their shares, and `follows`, the
    share of pairs whose second follows the first. Empty where nothing is masked."""
    counts: collections.Counter[int] = collections.Counter()
    labels: list[int] = []
    for path in storage.listed(folder):
        with chunks.open_file(path) as handle:
            for record in itertools.islice(tfrecord.records(handle), _EXAMPLES - len(labels)):
                example = ExampleToNumpyDict(record)
                counts.update(example[features.MASKED_LM_IDS][example[features.MASKED_LM_WEIGHTS] > 0].tolist())
                labels += example[features.NEXT_SENTENCE_LABELS].tolist()
    if not counts:
        return {}
    tokens, total = vocab_file.load(vocab_path), sum(counts.values())
    commonest = [[tokens[number], count / total] for number, count in counts.most_common(_TOKENS)]
    return {"tokens": commonest, "follows": labels.count(0) / len(labels)}
