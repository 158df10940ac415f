"""Fresh weights that know beforehand where to look, and which words are common.

Where the heads of a fresh encoder look is left to chance, and gradients tell little before they look at the right
place: most of a short run is spent finding out that the words beside a [MASK] say the most about it, after some of it
went into which words there are. Here heads of the first two layers have a place to look at from the first step:
position embeddings begin as sines and cosines (Vaswani et al. 2017, section 3.5), of which a product of query and key
that turns them by an offset is largest at that offset; and the bias of each token's answer begins at the logarithm of
its share. As Trockman and Kolter 2023 (arXiv 2305.09828) do with pictures, weights begin as trained ones look. All are
trained as any others are, and the checkpoint is one of BERT to every reader.
"""

import math

import numpy as np

from model.encoder import BertEncoder
from preprocessing import batches, features
from preprocessing.errors import require

FREQUENCIES = 16  # of the sines, from the highest down to the lowest; fewer where a head has no room for so many
HIGHEST, LOWEST = 2.0, math.pi / 64  # radians a token
SHARE = 0.3  # of the squared length of a token's embedding: its position's
SCORE = 8.0  # of the place that a head looks at, before the softmax; places beside it have about three quarters of it
BATCH, BATCHES = 256, 64  # of examples whose labels are counted


def inform(encoder: BertEncoder, examples: batches.Examples, transform: batches.Transform | None) -> None:
    """Gives a fresh encoder such weights. `examples` of masked tokens, after `transform`, tell how common words are."""
    look_at_neighbours(encoder)
    if encoder.masked_lm is not None and features.MASKED_LM_IDS in examples.spec.features:
        counts_V = np.ones(encoder.settings.vocab_size)  # one more than were seen: none is impossible
        for batch in examples.batches(BATCH, shuffle=False, transform=transform).take(BATCHES):
            labels, weights = (batch[name].numpy() for name in (features.MASKED_LM_IDS, features.MASKED_LM_WEIGHTS))
            counts_V += np.bincount(labels[weights > 0], minlength=len(counts_V))
        encoder.masked_lm.output_bias.assign(np.log(counts_V / counts_V.sum()))


def look_at_neighbours(encoder: BertEncoder) -> None:
    """Sets the position embeddings of a fresh encoder, and adds to its first layers' queries and keys what looks at
    positions. InputError where its heads are too narrow for that."""
    settings = encoder.settings
    hidden, head_size = settings.hidden_size, settings.head_size
    require(head_size > 1, "initial_weights informed needs heads of two values or more", head_size)
    frequencies = min(FREQUENCIES, head_size // 2)
    waves_F, width = np.geomspace(HIGHEST, LOWEST, frequencies), 2 * frequencies

    # Word and segment are two vectors of truncated normal values, of 0.774 times the variance of others.
    others = 2 * 0.774 * settings.initializer_range**2 * hidden
    amplitude = math.sqrt(SHARE / (1 - SHARE) * others / frequencies)
    angles_PF = np.arange(settings.max_positions)[:, None] * waves_F
    positions_PH = np.zeros((settings.max_positions, hidden))
    positions_PH[:, :width] = amplitude * np.concatenate([np.cos(angles_PF), np.sin(angles_PF)], 1)
    encoder.embeddings.position.assign(positions_PH)

    # LayerNorm makes the squared length of the whole `hidden`; of the position's share of it, times the scale twice,
    # comes the score.
    scale = math.sqrt(SCORE * math.sqrt(head_size) / (SHARE * hidden))
    offsets_of = places(settings.num_layers, settings.num_heads)
    for layer, offsets in zip(encoder.transformer_layers, offsets_of, strict=False):
        kernel_HX = layer.qkv_kernel.numpy().copy()
        for head, offset in enumerate(offsets):
            query, key = (kernel_HX[:width, first + head * head_size :][:, :width] for first in (0, hidden))
            cosines, sines = np.diag(np.cos(waves_F * offset)), np.diag(np.sin(waves_F * offset))
            query += scale * np.block([[cosines, sines], [-sines, cosines]])
            key += scale * np.eye(width)
        layer.qkv_kernel.assign(kernel_HX)


def places(layers: int, heads: int) -> list[list[int]]:
    """Where heads look, in tokens: one before, one after, two before, and so on upwards; all of the first layer, and of
    the second one half, since some must see the whole text."""
    found = [(1 + place // 2) * (1 if place % 2 else -1) for place in range(heads + heads // 2)]
    return [found[:heads], found[heads:]][:layers]
