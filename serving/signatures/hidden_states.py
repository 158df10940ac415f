"""What the encoder makes of a text or a pair, token by token: hidden states, attention, and the tokens themselves.

Shapes: B batch, L length of the padded batch, H hidden, N heads.
"""

import functools

import tensorflow as tf

from serving.signatures import packing
from serving.signatures.base import (
    DISTRIBUTIONS,
    GOLDEN_SECOND,
    GOLDEN_TEXTS,
    SECOND,
    TEXT,
    VECTORS,
    Inputs,
    Outputs,
    Signature,
    TextEncoder,
)

# Of layers + 1 hidden states [B, L, H], the embeddings first.
CHOICES = {
    "last": lambda states: states[-1],
    "second_to_last": lambda states: states[-2],
    "sum_last_four": lambda states: tf.add_n(states[-4:]),
    "concat_last_four": lambda states: tf.concat(states[:-5:-1], -1),  # the last one first
    "all": lambda states: tf.stack(states, 1),
}
OF_FOUR = ("sum_last_four", "concat_last_four")


def _features(encoder: TextEncoder, text, second) -> Outputs:
    """Hidden states by name, of one text or a pair (`second` empty: none). Ask for the outputs that you want (gRPC's
    `output_filter`), or call `features_<choice>`.

    Returns: `last`, `second_to_last`, `sum_last_four` float32 [B, L, H], `concat_last_four` [B, L, 4 H], `all`
    [B, layers + 1, L, H], zero at padding; `tokens` string [B, L], `mask` int32 [B, L], `truncated` bool [B].
    Models of fewer than four layers lack the two of four.
    """
    packed, states = _hidden_states(encoder, text, second)
    chosen = {name: choose(states) for name, choose in CHOICES.items() if not _too_few_layers(name, encoder)}
    return chosen | _words(encoder, packed)


def _chosen_features(choice: str, encoder: TextEncoder, text, second) -> Outputs:
    """`features`, one of the outputs of `_features`, and `tokens`, `mask`, `truncated` as there."""
    packed, states = _hidden_states(encoder, text, second)
    return {"features": CHOICES[choice](states)} | _words(encoder, packed)


def _attention(encoder: TextEncoder, text, second) -> Outputs:
    """Attention probabilities (`second` empty: none).

    Returns: `attention` float32 [B, layers, N, L, L] (from position, to position; zero at padding); `tokens` string
    [B, L], `mask` int32 [B, L], `truncated` bool [B].
    """
    packed = encoder.pack_pair(text, second, optional=True)
    attention = tf.cast(tf.stack(encoder.encode(packed, attentions=True)["attentions"], 1), tf.float32)
    real = packed.input_mask[:, None, None, :, None] > 0
    return {"attention": tf.where(real, attention, 0.0)} | _words(encoder, packed)


def _tokenize(encoder: TextEncoder, text) -> Outputs:
    """What the model sees.

    Returns: `ids` int32 and `tokens` string [B, L] with [CLS], [SEP] and padding; `length` int32 [B], the number of
    them that are no padding; `truncated` bool [B].
    """
    packed = encoder.pack(text)
    return {
        "ids": packed.input_ids,
        "tokens": tf.gather(encoder.vocab, packed.input_ids),
        "length": tf.reduce_sum(packed.input_mask, 1),
        "truncated": packed.truncated,
    }


def _hidden_states(encoder, text, second):
    packed = encoder.pack_pair(text, second, optional=True)
    states = encoder.encode(packed, hidden_states=True)["hidden_states"]
    real = packed.input_mask[:, :, None] > 0
    return packed, [tf.where(real, tf.cast(state, tf.float32), 0.0) for state in states]


def _words(encoder: TextEncoder, packed: packing.Packed) -> Outputs:
    tokens = tf.gather(encoder.vocab, packed.input_ids)
    return {"tokens": tokens, "mask": packed.input_mask, "truncated": packed.truncated}


def _too_few_layers(choice: str, encoder: TextEncoder) -> str | None:
    layers = encoder.model.settings.num_layers
    return f"the model has {layers} layers" if choice in OF_FOUR and layers < 4 else None


def _one_pair(encoder: TextEncoder) -> list[Inputs]:
    """One row: the answers are large."""
    return [{TEXT.name: [GOLDEN_TEXTS[0]], SECOND.name: [GOLDEN_SECOND]}]


def _long_first(encoder: TextEncoder, length: int) -> tuple[str, ...]:
    return encoder.text_of(length - 2), ""


_of_a_pair = functools.partial(Signature, inputs=(TEXT, SECOND), golden=_one_pair, warm_up=_long_first)
FEATURES = (
    _of_a_pair("features", answer=_features, rounded=dict.fromkeys(CHOICES, VECTORS)),
    *(
        _of_a_pair(
            f"features_{choice}",
            answer=functools.partial(_chosen_features, choice),
            rounded={"features": VECTORS},
            missing=functools.partial(_too_few_layers, choice),
        )
        for choice in CHOICES
    ),
)
ATTENTION = _of_a_pair("attention", answer=_attention, rounded={"attention": DISTRIBUTIONS})
TOKENIZE = Signature("tokenize", (TEXT,), _tokenize, rounded={})
