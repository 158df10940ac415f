"""The BERT encoder (Devlin et al. 2018; google-research/bert `modeling.py`).

Written here, not taken from keras-hub, for fidelity (both GELU variants, LayerNorm epsilon 1e-12, pretraining heads as
in the released checkpoints) and speed: one matmul for query, key and value; rows kept flat so that every dense layer
is one plain matrix product; the attention mask made once for all layers; dropout as a function of an explicit seed.

Shape legend: B batch, L length, R = B * L rows, H hidden, N attention heads, P predictions, V vocabulary.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from model.encoder.heads import (
    ALL_HEADS,
    PRETRAINING,
    ClassifierHead,
    Head,
    MaskedLMHead,
    NextSentenceHead,
    SpanHead,
    TaggerHead,
    chosen,
)
from model.encoder.layers import SEEDS_PER_LAYER, Embeddings, Pooler, TransformerLayer
from model.settings import EncoderSettings
from preprocessing.errors import require
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS

# Added to the attention scores of padding, as in google's code.
MASKED_SCORE = -10_000.0


class BertEncoder(keras.Model):
    """Encoder with pooler and, as asked, heads: Heads, or names of them. All weights exist after construction.

    Under a mixed precision policy (`dtype="mixed_bfloat16"`, or Keras's global policy) matmuls run in the compute type;
    LayerNorm, softmax and logits stay float32, and so do all variables.

    Attributes:
        settings: the EncoderSettings.
        masked_lm: `(sequence_output, positions [B, P]) -> float32 [B, P, V]`, or None.
        next_sentence: `(pooled_output) -> float32 [B, 2]`, or None.
        classifier: `(pooled_output) -> float32 [B, labels]`, or None.
        span: `(sequence_output) -> float32 [B, L, 2]`, or None.
        tagger: `(sequence_output) -> float32 [B, L, labels]`, or None.
        embeddings, transformer_layers, pooler: the parts, as layers.
        described_heads: what heads there are; the layer of each is the attribute of its name.
    """

    masked_lm: MaskedLMHead | None
    next_sentence: NextSentenceHead | None
    classifier: ClassifierHead | None
    span: SpanHead | None
    tagger: TaggerHead | None

    def __init__(self, settings: EncoderSettings, heads: Sequence[str | Head] = PRETRAINING, dtype=None, name="bert"):
        super().__init__(dtype=dtype, name=name, autocast=False)
        self.described_heads = chosen(heads)
        policy = self.dtype_policy
        self.settings = settings
        self.embeddings = Embeddings(settings, dtype=policy, name="embeddings")
        for i in range(settings.num_layers):  # as attributes: tf.train.Checkpoint does not look into Keras's lists
            setattr(self, f"layer_{i}", TransformerLayer(settings, dtype=policy, name=f"layer_{i}"))
        self.pooler = Pooler(settings, dtype=policy, name="pooler")
        embeddings = self.embeddings
        for head in ALL_HEADS:
            setattr(self, head.name, None)
        for head in self.described_heads:
            layer = head.layer(settings, head.labels, lambda: embeddings.word.value, dtype=policy, name=head.name)
            setattr(self, head.name, layer)
        self.built = True

    @property
    def transformer_layers(self) -> list[TransformerLayer]:
        return [getattr(self, f"layer_{i}") for i in range(self.settings.num_layers)]

    def adapt(self, rank: int, alpha: float, above: int = 0) -> None:
        """Adds adapters to the layers from number `above` on (see `TransformerLayer.adapt`). They live in memory and in
        a run's own checkpoints: what is saved has them added to its kernels, and no reader knows of them."""
        for layer in self.transformer_layers[above:]:
            layer.adapt(rank, alpha)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that are there."""
        return tuple(head.name for head in self.described_heads)

    def call(
        self,
        inputs,
        training=False,
        hidden_states=False,
        attentions=False,
        projections=False,
        seed=None,
        words=None,
        positions=None,
        recompute=False,
    ):
        """Encodes.

        Args:
            inputs: dict of `input_ids`, `input_mask` (1 = real token) and `segment_ids`, integers [B, L]. Ids outside
                the vocabulary raise tf.errors.InvalidArgumentError on a CPU; a GPU reads zeros for them.
            training: whether dropout is on.
            hidden_states, attentions, projections: whether to return those, too; they cost nothing when not asked for.
            seed: int32 [2], decides every dropped element. Derive it from the run's seed, the step and the replica
                (`tf.random.experimental.stateless_fold_in`). Without it, training draws one from TensorFlow's global
                generator.
            words: float [B, L, H], instead of looking up `input_ids` in the word embedding
                (`encoder.embeddings.lookup(ids)`); lets a training step take the sparse gradient by itself.
            positions: int32 [B, Q], the first of each row 0 (the pooler's): `sequence_output` is then [B, Q, H], the
                same values at these positions only. The last layer then leaves out most of its work; with few layers
                that is much of the whole.
            recompute: gradient checkpointing: nothing but each layer's output is kept for the gradient, the rest is
                computed again there, with the same dropout. Not with `attentions` and `projections`.

        Returns: dict of
            `sequence_output` [B, L, H] and `pooled_output` [B, H], of the compute type;
            `hidden_states`, a list of layers + 1 tensors [B, L, H], the embeddings first;
            `attentions`, a list of one tensor [B, N, L, L] per layer: probabilities before dropout;
            `projections`, a list of query, key and value per layer, [B, N, L, D] each, D = H / N: what attention is of.
        """
        settings = self.settings
        input_ids = tf.convert_to_tensor(inputs[INPUT_IDS])
        if input_ids.shape[1] is not None:
            require(
                input_ids.shape[1] <= settings.max_positions,
                f"the length must not exceed max_positions ({settings.max_positions})",
                input_ids.shape[1],
            )
        require(positions is None or not hidden_states, "hidden_states must be off with positions", hidden_states)
        require(positions is None or not projections, "projections must be off with positions", projections)
        require(not (recompute and attentions), "attentions must be off with recompute", attentions)
        require(not (recompute and projections), "projections must be off with recompute", projections)
        mask_B11L = (1 - tf.cast(inputs[INPUT_MASK], tf.float32))[:, None, None, :] * MASKED_SCORE

        embedding_seed, layer_seeds = None, [None] * settings.num_layers
        if training and (settings.dropout or settings.attention_dropout):
            if seed is None:
                seed = tf.random.uniform([2], tf.int32.min, tf.int32.max, tf.int32)
            seeds = tf.random.experimental.stateless_split(seed, 1 + SEEDS_PER_LAYER * settings.num_layers, "philox")
            embedding_seed, *seeds = tf.unstack(seeds)
            layer_seeds = [seeds[i : i + SEEDS_PER_LAYER] for i in range(0, len(seeds), SEEDS_PER_LAYER)]

        x_RH = self.embeddings(input_ids, inputs[SEGMENT_IDS], words=words, seed=embedding_seed)
        states_RH, probabilities_BNLL, projected = [x_RH], [], []
        for layer, seeds in zip(self.transformer_layers, layer_seeds, strict=True):
            chosen = positions if layer is self.transformer_layers[-1] else None
            options = {"mask_B11L": mask_B11L, "training": training, "seeds": seeds, "positions": chosen}
            if recompute:
                x_RH = tf.recompute_grad(lambda x, layer=layer, options=options: layer(x, **options)[0])(x_RH)
            else:
                x_RH, layer_probabilities_BNLL, layer_projected = layer(x_RH, **options)
                probabilities_BNLL.append(layer_probabilities_BNLL)
                if projections:
                    projected.append(layer_projected)
            states_RH.append(x_RH)

        shape = tf.concat([tf.shape(input_ids if positions is None else positions), [settings.hidden_size]], 0)
        sequence_output = tf.reshape(x_RH, shape)
        outputs = {"sequence_output": sequence_output, "pooled_output": self.pooler(sequence_output[:, 0])}
        if hidden_states:
            outputs["hidden_states"] = [tf.reshape(state_RH, shape) for state_RH in states_RH]
        if attentions:
            outputs["attentions"] = probabilities_BNLL
        if projections:
            outputs["projections"] = projected
        return outputs
