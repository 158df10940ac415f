"""What an exported model answers: raw text in, tensors out.

Every method named in `SIGNATURES` is one signature of the SavedModel. Called eagerly it is the Python path that the
export is compared with.

Texts are UTF-8; invalid bytes count for nothing. A text without tokens is `[CLS] [SEP]`.

Shapes: B batch, L length of the padded batch, H hidden, N heads, K top_k, M most `[MASK]`s in a text of the batch.
"""

from collections.abc import Callable

import tensorflow as tf

from model.encoder import BertEncoder
from preprocessing import features
from preprocessing.errors import InputError
from preprocessing.tokenizer import BertTokenizer
from serving import packing
from serving.precision import StoredEncoder
from serving.settings import ExportSettings

TEXT = tf.TensorSpec([None], tf.string, name="text")
FIRST = tf.TensorSpec([None], tf.string, name="first")
SECOND = tf.TensorSpec([None], tf.string, name="second")
EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")

INPUTS = {
    "serving_default": (TEXT,),
    "fill_mask": (TEXT,),
    "next_sentence": (FIRST, SECOND),
    "features": (TEXT, SECOND),
    "features_last": (TEXT, SECOND),
    "features_second_to_last": (TEXT, SECOND),
    "features_sum_last_four": (TEXT, SECOND),
    "features_concat_last_four": (TEXT, SECOND),
    "features_all": (TEXT, SECOND),
    "attention": (TEXT, SECOND),
    "tokenize": (TEXT,),
    "evaluate": (EXAMPLES,),
}
CHOICES = ("last", "second_to_last", "sum_last_four", "concat_last_four", "all")
MAX_SEQUENCE_BYTES = 8192  # longer texts get no `sequence`: it repeats the text once per mask and candidate


class Signatures:
    """The signatures of one encoder with its tokenizer.

    Args:
        encoder: its heads decide which signatures there are.
        tokenizer: of the encoder's vocabulary.
        settings: see ExportSettings.
    """

    def __init__(self, encoder: BertEncoder, tokenizer: BertTokenizer, settings: ExportSettings):
        if tokenizer.vocab_size > encoder.settings.vocab_size:
            raise InputError(
                "the vocabulary must not be larger than the model's word embedding "
                f"({encoder.settings.vocab_size} rows). Received: {tokenizer.vocab_size} tokens"
            )
        self.settings = settings
        self.lengths = settings.padded_lengths(encoder.settings.max_positions)
        self._tokenizer = tokenizer
        self._vocab = tf.constant(tokenizer.vocab)
        self._special = {name: getattr(tokenizer, name) for name in ("cls_id", "sep_id", "pad_id")}
        self._encoder = StoredEncoder(encoder, settings)
        self.variables = self._encoder.variables
        self._shared: dict[tuple, Callable] = {}

    def left_out(self) -> dict[str, str]:
        """Signatures that this encoder cannot answer, each with the reason."""
        reasons = {}
        if self._encoder.masked_lm is None:
            reasons["fill_mask"] = "the checkpoint has no masked-language head"
        if self._encoder.next_sentence is None:
            reasons["next_sentence"] = "the checkpoint has no next-sentence head"
        if not self._encoder.heads:
            reasons["evaluate"] = "the checkpoint has no pretraining head"
        if self._encoder.settings.num_layers < 4:
            for choice in ("sum_last_four", "concat_last_four"):
                reasons[f"features_{choice}"] = f"the model has {self._encoder.settings.num_layers} layers"
        return reasons

    def methods(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """The signatures that this encoder answers."""
        left_out = self.left_out()
        return {name: getattr(self, name) for name in INPUTS if name not in left_out}

    # ------------------------------------------------------------------------------------------------ signatures

    def serving_default(self, text):
        """One vector per text.

        Returns: `embedding` float32 [B, H]; `truncated` bool [B].
        """
        packed = self._pack(text)
        if self.settings.embedding == "pooler":
            embedding = self._pooled(packed)
        else:
            mask = tf.cast(packed.input_mask, tf.float32)
            total = tf.einsum("bl,blh->bh", mask, tf.cast(self._encode(packed)["sequence_output"], tf.float32))
            embedding = total / tf.reduce_sum(mask, 1, keepdims=True)
        embedding = tf.cast(embedding, tf.float32)
        if self.settings.unit_length:
            embedding = tf.math.l2_normalize(embedding, -1)
        return {"embedding": embedding, "truncated": packed.truncated}

    def fill_mask(self, text):
        """The likeliest tokens for each literal `[MASK]`, the first `max_predictions` of a text.

        Returns: `tokens` string and `scores` float32 (probabilities, descending) [B, M, K], `sequence` string
        [B, M, K] (the text with that token in that place; empty for texts above 8 KiB), all padded with empty or zero
        behind each row's `mask_count` int32 [B]; `truncated` bool [B].
        """
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")
        packed = self._pack_with_masks(text)

        is_mask = packed.input_ids == self._tokenizer.mask_id
        answered = tf.cumsum(tf.cast(is_mask, tf.int32), 1) <= self.settings.max_predictions
        where = tf.where(is_mask & answered)
        row, batch = where[:, 0], tf.shape(text, tf.int64)[0]
        # One prediction per row of a batch of masks, so that texts with few masks do not wait for one with many.
        hidden = self._encode(packed, only=row * tf.shape(is_mask, tf.int64)[1] + where[:, 1])["sequence_output"]
        logits = self._encoder.masked_lm(hidden[:, None, :], tf.zeros([tf.size(row), 1], tf.int32))
        logits = logits[:, 0, : self._tokenizer.vocab_size]
        best, ids = tf.math.top_k(logits, min(self.settings.top_k, self._tokenizer.vocab_size))
        scores = tf.exp(best - tf.reduce_logsumexp(logits, -1, keepdims=True))
        tokens = tf.gather(self._vocab, ids)

        rows = tf.RaggedTensor.from_value_rowids(tf.range(tf.size(row)), row, batch)
        ordinal = tf.range(tf.size(row)) - tf.cast(tf.gather(rows.row_starts(), row), tf.int32)

        def padded(values):
            dense = rows.with_values(values).to_tensor()
            return tf.ensure_shape(dense, [None, None, values.shape[1]])

        return {
            "tokens": padded(tokens),
            "scores": padded(scores),
            "sequence": padded(_sequences(tf.gather(text, row), ordinal, tokens)),
            "mask_count": tf.cast(rows.row_lengths(), tf.int32),
            "truncated": packed.truncated,
        }

    def next_sentence(self, first, second):
        """Whether the second text follows the first.

        Returns: `is_next` float32 [B], a probability; `truncated` bool [B].
        """
        packed = self._pack_pair(first, second, optional=False)
        logits = self._encoder.next_sentence(self._pooled(packed))
        return {"is_next": tf.nn.softmax(logits)[:, 0], "truncated": packed.truncated}

    def features(self, text, second):
        """Hidden states by name, of one text or a pair (`second` empty: none). Ask for the outputs that you want
        (gRPC's `output_filter`), or call `features_<choice>`.

        Returns: `last`, `second_to_last`, `sum_last_four` float32 [B, L, H], `concat_last_four` [B, L, 4 H], `all`
        [B, layers + 1, L, H] (the embeddings first), zero at padding; `tokens` string [B, L], `mask` int32 [B, L],
        `truncated` bool [B].
        Models of fewer than four layers lack the two of four.
        """
        left_out = self.left_out()
        choices = [choice for choice in CHOICES if f"features_{choice}" not in left_out]
        packed, states = self._hidden_states(text, second)
        return {choice: _chosen(choice, states) for choice in choices} | self._words(packed)

    def features_last(self, text, second):
        """`features` float32 [B, L, H] of the last layer; `tokens`, `mask`, `truncated` as `features`."""
        return self._chosen_features("last", text, second)

    def features_second_to_last(self, text, second):
        """`features` float32 [B, L, H] of the layer before the last."""
        return self._chosen_features("second_to_last", text, second)

    def features_sum_last_four(self, text, second):
        """`features` float32 [B, L, H], the last four layers added."""
        return self._chosen_features("sum_last_four", text, second)

    def features_concat_last_four(self, text, second):
        """`features` float32 [B, L, 4 H], the last four layers side by side, the last one first."""
        return self._chosen_features("concat_last_four", text, second)

    def features_all(self, text, second):
        """`features` float32 [B, layers + 1, L, H], the embeddings first."""
        return self._chosen_features("all", text, second)

    def attention(self, text, second):
        """Attention probabilities (`second` empty: none).

        Returns: `attention` float32 [B, layers, N, L, L] (from position, to position; zero at padding);
        `tokens` string [B, L], `mask` int32 [B, L], `truncated` bool [B].
        """
        packed = self._pack_pair(text, second, optional=True)
        attention = tf.cast(tf.stack(self._encode(packed, attentions=True)["attentions"], 1), tf.float32)
        real = packed.input_mask[:, None, None, :, None] > 0
        return {"attention": tf.where(real, attention, 0.0)} | self._words(packed)

    def tokenize(self, text):
        """What the model sees.

        Returns: `ids` int32 and `tokens` string [B, L] with [CLS], [SEP] and padding; `length` int32 [B], the number
        of them that are no padding; `truncated` bool [B].
        """
        packed = self._pack(text)
        return {
            "ids": packed.input_ids,
            "tokens": tf.gather(self._vocab, packed.input_ids),
            "length": tf.reduce_sum(packed.input_mask, 1),
            "truncated": packed.truncated,
        }

    def evaluate(self, examples):
        """Sums for each masked pair, to be added up and divided: `mlm_loss / mlm_weight` is the masked-language loss.

        Takes serialized tf.Examples as of `preprocessing.features`, of any length up to the model's.

        Returns: float32 [B] each: `mlm_correct`, `mlm_loss` (negative log-likelihood in nats), `mlm_weight` (number of
        predictions), `nsp_correct`, `nsp_loss`, `nsp_weight` (1), as far as the checkpoint has the heads.
        """
        parsed = tf.io.parse_example(examples, _example_features(self._encoder.heads))
        inputs = {name: tf.cast(parsed[name], tf.int32) for name in features.SEQUENCE_FEATURES}
        real = packing.padded_length(tf.reduce_max(tf.reduce_sum(inputs[features.INPUT_MASK], 1)), self.lengths)
        outputs = self._encoder({name: ids[:, :real] for name, ids in inputs.items()})
        sums = {}
        if self._encoder.masked_lm is not None:
            positions = tf.cast(parsed[features.MASKED_LM_POSITIONS], tf.int32)
            logits = self._encoder.masked_lm(outputs["sequence_output"], positions)
            weights = parsed[features.MASKED_LM_WEIGHTS]
            correct, loss = _correct_and_loss(logits, parsed[features.MASKED_LM_IDS])
            sums["mlm_correct"] = tf.reduce_sum(correct * weights, 1)
            sums["mlm_loss"] = tf.reduce_sum(loss * weights, 1)
            sums["mlm_weight"] = tf.reduce_sum(weights, 1)
        if self._encoder.next_sentence is not None:
            logits = self._encoder.next_sentence(outputs["pooled_output"])
            labels = parsed[features.NEXT_SENTENCE_LABELS][:, 0]
            sums["nsp_correct"], sums["nsp_loss"] = _correct_and_loss(logits, labels)
            sums["nsp_weight"] = tf.ones_like(sums["nsp_loss"])
        return sums

    # ---------------------------------------------------------------------------------------------------- their parts

    def _pack(self, text) -> packing.Packed:
        return packing.pack_single(packing.rows(self._tokenizer.tokenize(text)), lengths=self.lengths, **self._special)

    def _pack_pair(self, first, second, optional) -> packing.Packed:
        both = packing.rows(self._tokenizer.tokenize(tf.concat([first, second], 0)))
        a, b = packing.halves(both)
        return packing.pack_pair(a, b, optional=optional, lengths=self.lengths, **self._special)

    def _pack_with_masks(self, text) -> packing.Packed:
        """As `_pack`, with [MASK]'s id for each literal `[MASK]`, which the tokenizer itself would take apart."""
        pieces = tf.strings.split(text, features.MASK)
        tokens = self._tokenizer.tokenize(pieces.values)
        mask = tf.fill([tokens.nrows(), 1], self._tokenizer.mask_id)
        followed = packing.rows(tf.concat([tokens, tf.RaggedTensor.from_tensor(mask)], 1))
        # A text's tokens are those of its pieces, each followed by a mask, without the last mask.
        ends = tf.concat([[0], tf.cumsum(followed.lengths)], 0)
        splits = tf.gather(ends, pieces.row_splits)
        rows = packing.Rows(followed.values, splits[:-1], tf.maximum(splits[1:] - splits[:-1] - 1, 0))
        return packing.pack_single(rows, lengths=self.lengths, **self._special)

    def _encode(self, packed, only=None, **asked) -> dict:
        """The encoder's outputs, with `only` as of `serving.forward`. Signatures that ask for the same ones share one
        function of the SavedModel."""

        def encode(features, *only):
            return self._encoder(features, *only, **asked)

        inputs = [packed.features] if only is None else [packed.features, only]
        if tf.executing_eagerly():
            return encode(*inputs)
        key = (len(inputs), *asked)
        if key not in self._shared:
            specs: list = [dict.fromkeys(packed.features, tf.TensorSpec([None, None], tf.int32))]
            specs += [tf.TensorSpec([None], tf.int64)] * (len(inputs) - 1)
            self._shared[key] = tf.function(encode, input_signature=specs, autograph=False)
        return self._shared[key](*inputs)

    def _pooled(self, packed):
        """The pooler's output, [B, H]."""
        batch, length = tf.unstack(tf.shape(packed.input_ids, tf.int64))
        return self._encoder.pooler(self._encode(packed, only=tf.range(batch) * length)["sequence_output"])

    def _hidden_states(self, text, second):
        packed = self._pack_pair(text, second, optional=True)
        states = self._encode(packed, hidden_states=True)["hidden_states"]
        real = packed.input_mask[:, :, None] > 0
        return packed, [tf.where(real, tf.cast(state, tf.float32), 0.0) for state in states]

    def _chosen_features(self, choice, text, second):
        packed, states = self._hidden_states(text, second)
        return {"features": _chosen(choice, states)} | self._words(packed)

    def _words(self, packed):
        tokens = tf.gather(self._vocab, packed.input_ids)
        return {"tokens": tokens, "mask": packed.input_mask, "truncated": packed.truncated}


def _chosen(choice: str, states: list[tf.Tensor]) -> tf.Tensor:
    """One of CHOICES from layers + 1 hidden states [B, L, H]."""
    return {
        "last": lambda: states[-1],
        "second_to_last": lambda: states[-2],
        "sum_last_four": lambda: tf.add_n(states[-4:]),
        "concat_last_four": lambda: tf.concat(states[:-5:-1], -1),
        "all": lambda: tf.stack(states, 1),
    }[choice]()


def _sequences(text, ordinal, tokens):
    """The text of each mask (string [n]) with its `ordinal`-th `[MASK]` (int32 [n]) replaced by each of `tokens`
    [n, K]; a word piece (`##ing`) is joined to what stands before it. Other masks stay."""
    short = tf.strings.length(text) <= MAX_SEQUENCE_BYTES
    text = tf.where(short, text, "")
    # Each piece of the text with the mask behind it; the running sum of their bytes is where the next piece starts.
    sizes = tf.strings.length(tf.strings.split(text, features.MASK)) + len(features.MASK)
    ends = tf.cumsum(sizes.to_tensor(), axis=1)
    ends = tf.pad(ends, [[0, 0], [0, tf.maximum(tf.reduce_max(ordinal) + 1 - tf.shape(ends)[1], 0)]])
    end = tf.minimum(tf.gather(ends, ordinal, axis=1, batch_dims=1), tf.strings.length(text))
    before = tf.strings.substr(text, tf.zeros_like(end), tf.maximum(end - len(features.MASK), 0))
    after = tf.strings.substr(text, end, tf.strings.length(text) - end)

    candidates = tf.shape(tokens)[1]
    is_piece = tf.strings.regex_full_match(tokens, "##.+")
    without_blanks = tf.strings.regex_replace(before, r"\s+$", "")
    before = tf.where(is_piece, without_blanks[:, None], before[:, None])
    words = tf.where(is_piece, tf.strings.regex_replace(tokens, "^##", ""), tokens)
    sequences = tf.strings.join([before, words, tf.repeat(after[:, None], candidates, 1)])
    return tf.where(short[:, None], sequences, "")


def _example_features(heads) -> dict:
    def numbers(dtype):  # of any number; shorter lists are padded with zeros
        return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

    parsed = {name: numbers(tf.int64) for name in features.SEQUENCE_FEATURES}
    if "masked_lm" in heads:
        parsed |= {name: numbers(tf.int64) for name in features.PREDICTION_FEATURES}
        parsed[features.MASKED_LM_WEIGHTS] = numbers(tf.float32)
    if "next_sentence" in heads:
        parsed[features.NEXT_SENTENCE_LABELS] = tf.io.FixedLenFeature([1], tf.int64)
    return parsed


def _correct_and_loss(logits, labels):
    """1.0 where the largest logit is the label's, and the negative log-likelihood; shapes of `labels`."""
    correct = tf.cast(tf.argmax(logits, -1, output_type=labels.dtype) == labels, tf.float32)
    return correct, tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
