"""AdamW as google-research/bert has it, LAMB and SGD: one pass over each variable, on whatever devices there are.

google's AdamW (`optimization.py`): no bias correction, decoupled weight decay, and the update
`p -= lr * (m / (sqrt(v) + epsilon) + decay * p)`. Moments of every row of the word embedding decay in every step, as in
google's code, so its gradient is dense here.
LAMB: You et al. 2019 (arXiv 1904.00962), algorithm 2: the same update with bias correction as asked for, its length in
each matrix (query, key and value each by itself) set to lr times the matrix's norm. As in the authors' code, what is
not decayed is not adapted either.
"""

from collections.abc import Sequence

import tensorflow as tf

from model.encoder import BertEncoder
from model.settings import TrainingSettings, Tune

# Last part of the names of the weights that are not decayed: biases, and LayerNorm's scale and offset.
NOT_DECAYED = ("bias", "norm_scale", "norm_offset")


def decays(path: str) -> bool:
    """Whether weight decay applies to the encoder's variable of this path; the exact set stands in the tests."""
    name = path.rsplit("/", 1)[-1]
    return not any(name == ending or name.endswith("_" + ending) for ending in NOT_DECAYED)


def learning_rate(settings: TrainingSettings, step: tf.Tensor) -> tf.Tensor:
    """Learning rate of a step (from 0): linear from 0 during warm-up, then as the schedule says.

    As in google's code the decay counts from step 0, not from the end of warm-up; but with `one-cycle` from there.
    """
    step = tf.cast(step, tf.float32)
    peak, end = settings.learning_rate, settings.end_learning_rate
    if settings.schedule == "constant":
        rate = tf.constant(peak, tf.float32)
    else:
        begin = settings.warmup if settings.schedule == "one-cycle" else 0
        left = 1 - (tf.minimum(step, float(settings.steps)) - begin) / (settings.steps - begin)
        rate = (peak - end) * left**settings.schedule_power + end
    if settings.warmup:
        rate = tf.where(step < settings.warmup, peak * step / settings.warmup, rate)
    return rate


def depth(path: str, layers: int) -> int:
    """How far below what stands on the encoder (pooler, heads) a variable is: 0 there, 1 in the last layer, and so on,
    down to the embeddings."""
    for part in path.split("/"):
        if part == "embeddings":
            return layers + 1
        if part.startswith("layer_"):
            return layers - int(part.removeprefix("layer_"))
    return 0


def layer_rates(paths: Sequence[str], layers: int, decay: float, head_rate: float = 1.0) -> list[float]:
    """Share of the learning rate for each variable: `head_rate` for what stands on the encoder, `decay` for its last
    layer, `decay` squared for the one before it, down to the embeddings."""
    return [decay**below if (below := depth(path, layers)) else head_rate for path in paths]


# Last parts of the names of the weights in the layers that each way of tuning trains.
_TUNED: dict[Tune, tuple[str, ...]] = {
    "all": ("",),
    "head": (),
    "lora": ("_down", "_up"),
    "bias": ("bias", "norm_offset"),
}


def choose(encoder: BertEncoder, settings: TrainingSettings) -> None:
    """Makes those of the encoder's variables trainable that the settings say: pooler and heads always. What is not
    there yet but is to be trained, adapters of the layers that are not frozen, is made."""
    layers = encoder.settings.num_layers
    if settings.tune == "lora":
        encoder.adapt(settings.lora_rank, settings.lora_alpha, above=settings.freeze)
    for variable in encoder.variables:
        below = depth(variable.path, layers)
        frozen = settings.freeze and below > layers - settings.freeze
        variable.trainable = not below or (not frozen and variable.path.endswith(_TUNED[settings.tune]))


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
        # Matrices side by side in each variable whose update LAMB adapts; 0: not adapted.
        self._matrices = [
            (3 if variable.path.endswith("qkv_kernel") else 1) if decays(variable.path) else 0 for variable in variables
        ]
        paths = [variable.path for variable in variables]
        self._rates = layer_rates(paths, layers, settings.layer_decay, settings.head_rate)
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
        scalars = self._scalars(step, scale)
        if tf.distribute.has_strategy():
            context = tf.distribute.get_replica_context()
            context.merge_call(self._apply_everywhere, args=(gradients, scalars, good))
        else:
            self._unless_bad(good, lambda: self._change_all(gradients, scalars))

    def apply_compiled(self, gradients, step, scale, good):
        """`apply` on one device in code that XLA compiles. There the choice between old and new values is part of the
        pass that writes them; a branch would make the host wait for `good`."""
        variables = [*self._variables, *self.slots]
        before = [variable.read_value() for variable in variables]
        self._change_all(gradients, self._scalars(step, scale))
        for variable, value in zip(variables, before, strict=True):
            variable.assign(tf.where(good, variable, value))

    def _scalars(self, step, scale):
        """What a step is for every variable: scale of the gradients, rate, and what bias correction divides by; without
        it, nothing has been lost."""
        settings, count = self.settings, tf.cast(step + 1, tf.float32)
        powers = [
            beta**count if settings.bias_correction else tf.constant(0.0) for beta in (settings.beta_1, settings.beta_2)
        ]
        return scale, learning_rate(settings, step), *powers

    def _change_all(self, gradients, scalars):
        for index, gradient in enumerate(gradients):
            self._change(self._variables[index], index, gradient, scalars, *self._moments(index))

    def _apply_everywhere(self, strategy, gradients, scalars, good):
        def change(variable, index, gradient, scalars, good, *moments):
            self._unless_bad(good, lambda: self._change(variable, index, gradient, scalars, *moments))

        for index, gradient in enumerate(gradients):
            strategy.extended.update(
                self._variables[index],
                change,
                args=(index, gradient, scalars, good, *self._moments(index)),
                group=False,
            )

    def _moments(self, index):
        return (self._first[index], self._second[index]) if self._first else ()

    @staticmethod
    def _unless_bad(good, change):
        def changed():
            change()
            return good

        tf.cond(good, changed, lambda: good)

    def _change(self, variable, index, gradient, scalars, first=None, second=None):
        settings, decay = self.settings, self._decay[index]
        scale, rate, power_1, power_2 = scalars
        rate *= self._rates[index]
        gradient = tf.cast(gradient, tf.float32)
        if settings.optimizer == "adamw" and decay and not tf.distribute.has_strategy():
            # Under a strategy TensorFlow mixes up the variables of compiled updates on several devices.
            _decayed_adam(
                (variable, first, second),
                gradient,
                [scale, rate, power_1, power_2],
                (settings.beta_1, settings.beta_2, settings.epsilon, decay),
            )
            return
        gradient = gradient * scale
        if settings.optimizer == "adamw":
            # TensorFlow's kernel is one pass in all threads. For vectors it is faster than starting compiled code.
            # Decay comes before it, so that it sees the old weights.
            if decay:
                variable.assign_sub(rate * decay * variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=rate,
                beta1=settings.beta_1,
                beta2=settings.beta_2,
                epsilon=settings.epsilon * tf.sqrt(1 - power_2),  # the kernel corrects the root alone
                grad=gradient,
            )
            return
        update = gradient
        if settings.optimizer == "lamb":
            first.assign(settings.beta_1 * first + (1 - settings.beta_1) * gradient)
            second.assign(settings.beta_2 * second + (1 - settings.beta_2) * tf.square(gradient))
            update = first / (1 - power_1) / (tf.sqrt(second / (1 - power_2)) + settings.epsilon)
        if decay:
            update += decay * variable
        matrices = self._matrices[index]
        if settings.optimizer == "lamb" and matrices:
            parts = [tf.reshape(value, [variable.shape[0], matrices, -1]) for value in (variable, update)]
            size, norm = (tf.norm(part, axis=(0, 2), keepdims=True) for part in parts)
            ratio = tf.where((size > 0) & (norm > 0), size / tf.maximum(norm, 1e-30), 1.0)
            update = tf.reshape(ratio * parts[1], variable.shape)
        variable.assign_sub(rate * update)


@tf.function(jit_compile=True, autograph=False)
def _decayed_adam(variables, gradient, scalars, constants):
    """Clipping, moments, decay and update of a matrix, compiled: half the memory traffic of separate operations."""
    variable, first, second = variables
    scale, rate, power_1, power_2 = scalars
    beta_1, beta_2, epsilon, decay = constants
    gradient *= scale
    first.assign(beta_1 * first + (1 - beta_1) * gradient)
    second.assign(beta_2 * second + (1 - beta_2) * gradient * gradient)
    update = first / (1 - power_1) / (tf.sqrt(second / (1 - power_2)) + epsilon)
    variable.assign_sub(rate * (update + decay * variable))
