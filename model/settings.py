"""The architecture of an encoder. Frozen, validated; stored with every checkpoint."""

import dataclasses
from typing import Literal

from preprocessing.errors import require

Activation = Literal["gelu_tanh", "gelu"]


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """A BERT encoder (Devlin et al. 2018, section 3). Defaults are those of BERT-base, uncased.

    `activation` belongs to the checkpoint: google-research/bert computes GELU by its tanh approximation
    (`"gelu_tanh"`), Hugging Face's `"gelu"` is exact (`"gelu"` here too).
    """

    vocab_size: int = 30_522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    type_vocab_size: int = 2
    activation: Activation = "gelu_tanh"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_epsilon: float = 1e-12

    def __post_init__(self):
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        require(self.max_positions > 0, "max_positions must be positive", self.max_positions)
        require(self.type_vocab_size > 0, "type_vocab_size must be positive", self.type_vocab_size)
        require(
            self.hidden_size % self.num_heads == 0,
            f"hidden_size must be a multiple of num_heads ({self.num_heads})",
            self.hidden_size,
        )
        require(self.activation in ("gelu_tanh", "gelu"), 'activation must be "gelu_tanh" or "gelu"', self.activation)
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1)", getattr(self, name))
        require(self.initializer_range > 0, "initializer_range must be positive", self.initializer_range)
        require(self.layer_norm_epsilon > 0, "layer_norm_epsilon must be positive", self.layer_norm_epsilon)

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


def _named(layers: int, hidden: int, heads: int, overrides: dict) -> EncoderSettings:
    sizes = {"num_layers": layers, "hidden_size": hidden, "num_heads": heads, "intermediate_size": 4 * hidden}
    return EncoderSettings(**(sizes | overrides))


def tiny(**overrides) -> EncoderSettings:
    """2 layers, 128 hidden, 2 heads: 4.4 M parameters with google's vocabulary."""
    return _named(2, 128, 2, overrides)


def mini(**overrides) -> EncoderSettings:
    """4 layers, 256 hidden, 4 heads."""
    return _named(4, 256, 4, overrides)


def small(**overrides) -> EncoderSettings:
    """4 layers, 512 hidden, 8 heads."""
    return _named(4, 512, 8, overrides)


def medium(**overrides) -> EncoderSettings:
    """8 layers, 512 hidden, 8 heads."""
    return _named(8, 512, 8, overrides)


def base(**overrides) -> EncoderSettings:
    """12 layers, 768 hidden, 12 heads: BERT-base, 109,482,240 parameters with the uncased vocabulary."""
    return _named(12, 768, 12, overrides)


def large(**overrides) -> EncoderSettings:
    """24 layers, 1024 hidden, 16 heads: BERT-large."""
    return _named(24, 1024, 16, overrides)


NAMED = {"tiny": tiny, "mini": mini, "small": small, "medium": medium, "base": base, "large": large}
