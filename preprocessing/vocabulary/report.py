"""How well a vocabulary fits a text, from the counts of the text's words."""

from collections.abc import Mapping, Sequence

import numpy as np

_BATCH = 50_000


def describe(vocab: Sequence[str], word_counts: Mapping[str, int], lower_case: bool) -> dict[str, float]:
    """Figures over all words of a text, each as often as it comes (`words.count_words` of held-out text):

    `size`, and how many tokens of it are `unused` place holders; `words` in the text; `coverage`, the share of words
    that do not become [UNK]; `whole_words`, the share that are one known token; `pieces_per_word`; `unknown_share`, of
    [UNK] among all pieces.
    """
    from preprocessing.tokenizer import BertTokenizer  # imports TensorFlow, which takes seconds

    tokenizer = BertTokenizer(vocab, lower_case)
    words = list(word_counts)
    pieces, is_unknown = np.zeros(len(words), np.int64), np.zeros(len(words), bool)
    for start in range(0, len(words), _BATCH):
        ids = tokenizer.tokenize(words[start : start + _BATCH])
        pieces[start : start + _BATCH] = ids.row_lengths().numpy()
        firsts = np.concatenate([ids.values.numpy(), [-1]])[ids.row_starts().numpy()]
        is_unknown[start : start + _BATCH] = firsts == tokenizer.unk_id
    counts = np.fromiter(word_counts.values(), np.int64, len(words))
    total = max(int(counts.sum()), 1)

    def share(part: np.ndarray, whole: float) -> float:
        return round(float(part @ counts) / max(whole, 1), 6)

    return {
        "size": len(vocab),
        "unused": sum(token.startswith("[unused") for token in vocab),
        "words": int(counts.sum()),
        "coverage": share(~is_unknown, total),
        "whole_words": share((pieces == 1) & ~is_unknown, total),
        "pieces_per_word": share(pieces, total),
        "unknown_share": share(is_unknown, float(pieces @ counts)),
    }
