"""AdamW as google-research/bert has it, LAMB and SGD: one pass over each variable, on whatever devices there are.

google's AdamW (`optimization.py`): no bias correction, decoupled weight decay, and the update
`p -= lr * (m / (sqrt(v) + epsilon) + decay * p)`. Moments of every row of the word embedding decay in every step, as in
google's code, so its gradient is dense here.
LAMB: You et al. 2019 (arXiv 1904.00962), algorithm 2: the same update with bias correction as asked for, its length in
each variable set to lr times the variable's norm.
"""

from collections.abc import Sequence

import tensorflow as tf

from model.training_settings import TrainingSettings

# Last part of the names of the weights that are not decayed: biases, and LayerNorm's scale and offset.
NOT_DECAYED = ("bias", "norm_scale", "norm_offset")


def decays(path: str) -> bool:
    """Whether weight decay applies to the encoder's variable of this path; the exact set stands in the tests."""
    name = path.rsplit("/", 1)[-1]
    return not any(name == ending or name.endswith("_" + ending) for ending in NOT_DECAYED)


def learning_rate(settings: TrainingSettings, step: tf.Tensor) -> tf.Tensor:
    """Learning rate of a step (from 0): linear from 0 during warm-up, then as the schedule says.

    As in google's code the decay counts from step 0, not from the end of warm-up.
    """
    step = tf.cast(step, tf.float32)
    peak, end = settings.learning_rate, settings.end_learning_rate
    if settings.schedule == "constant":
        rate = tf.constant(peak, tf.float32)
    else:
        left = 1 - tf.minimum(step, float(settings.steps)) / settings.steps
        rate = (peak - end) * left**settings.schedule_power + end
    if settings.warmup:
        rate = tf.where(step < settings.warmup, peak * step / settings.warmup, rate)
    return rate


def layer_rates(paths: Sequence[str], layers: int, decay: float) -> list[float]:
    """Share of the learning rate for each variable: 1 for what stands on the encoder (pooler, heads), `decay` for its
    last layer, `decay` squared for the one before it, down to the embeddings."""

    def depth(path):
        for part in path.split("/"):
            if part == "embeddings":
                return layers + 1
            if part.startswith("layer_"):
                return layers - int(part.removeprefix("layer_"))
        return 0

    return [decay ** depth(path) for path in paths]


class Optimizer(tf.Module):
    """Updates variables in place. To be made in the strategy's scope; `variables` are Keras's, in a fixed order.

    Attributes:
        slots: the moments (none for SGD), to be stored with the weights.
    """

    def __init__(self, settings: TrainingSettings, variables: Sequence, layers: int):
        super().__init__()
        self.settings = settings
        self._variables = [variable.value for variable in variables]
        self._decay = [settings.weight_decay if decays(variable.path) else 0.0 for variable in variables]
        self._rates = layer_rates([variable.path for variable in variables], layers, settings.layer_decay)
        zeros = [] if settings.optimizer == "sgd" else self._variables
        self._first = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in zeros]
        self._second = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in zeros]

    @property
    def slots(self) -> list[tf.Variable]:
        return self._first + self._second

    def apply(self, gradients: Sequence[tf.Tensor], step: tf.Tensor, scale: tf.Tensor, good: tf.Tensor) -> None:
        """One update.

        Args:
            gradients: dense, one for each variable, already summed over devices.
            step: int, from 0.
            scale: multiplies the gradients (clipping).
            good: bool; when false, nothing changes.
        """
        context = tf.distribute.get_replica_context()
        if context is not None and tf.distribute.has_strategy():
            context.merge_call(self._apply_everywhere, args=(gradients, step, scale, good))
        else:
            for index, gradient in enumerate(gradients):
                moments = (self._first[index], self._second[index]) if self._first else ()
                self._update(self._variables[index], index, gradient, step, scale, good, *moments)

    def _apply_everywhere(self, strategy, gradients, step, scale, good):
        for index, gradient in enumerate(gradients):
            moments = (self._first[index], self._second[index]) if self._first else ()
            strategy.extended.update(
                self._variables[index],
                self._update,
                args=(index, gradient, step, scale, good, *moments),
                group=False,
            )

    def _update(self, variable, index, gradient, step, scale, good, first=None, second=None):
        settings = self.settings
        rate = learning_rate(settings, step) * self._rates[index]
        gradient = tf.cast(gradient, tf.float32) * scale
        value = variable.read_value()
        if settings.optimizer == "sgd":
            change = gradient
        else:
            new_first = settings.beta_1 * first + (1 - settings.beta_1) * gradient
            new_second = settings.beta_2 * second + (1 - settings.beta_2) * tf.square(gradient)
            first.assign(tf.where(good, new_first, first))
            second.assign(tf.where(good, new_second, second))
            if settings.bias_correction:
                count = tf.cast(step + 1, tf.float32)
                new_first /= 1 - settings.beta_1**count
                new_second /= 1 - settings.beta_2**count
            change = new_first / (tf.sqrt(new_second) + settings.epsilon)
        if self._decay[index]:
            change += self._decay[index] * value
        if settings.optimizer == "lamb":
            size, norm = tf.norm(value), tf.norm(change)
            rate *= tf.where((size > 0) & (norm > 0), size / tf.maximum(norm, 1e-30), 1.0)
        variable.assign(tf.where(good, value - rate * change, value))
