"""One update of the weights, on one device or many.

Every device computes gradients of its part of the batch, already divided by what belongs to the whole batch; one sum
over devices then gives the gradient of the whole batch, which is clipped and applied everywhere alike.
"""

import tensorflow as tf

from model.encoder import BertEncoder
from model.settings import TrainingSettings
from model.tasks.task import Task
from model.training.optimizer import Optimizer
from preprocessing import features
from preprocessing.errors import require

# What a step tells beside the task's sums, in this order.
EXTRA = ("examples", "tokens", "gradient_norm", "good")
# The random generator by name: the one that TensorFlow takes by itself differs in compiled code, and seeds with it.
PHILOX = "philox"


class LossScale(tf.Module):
    """float16's loss scaling: gradients are computed of the loss times a factor, so that small ones do not vanish.

    The factor doubles after 2,000 good steps and halves after each bad one. Other precisions leave it at 1.
    """

    GROW_AFTER, GREATEST = 2000, 2.0**24

    def __init__(self, precision: str):
        super().__init__()
        self.enabled = precision == "float16"
        self.factor = tf.Variable(2.0**15 if self.enabled else 1.0, trainable=False)
        self.good_steps = tf.Variable(0, trainable=False)

    def value(self) -> tf.Tensor:
        return self.factor.read_value()

    def update(self, good: tf.Tensor) -> None:
        good_steps = tf.where(good, self.good_steps + 1, 0)
        grow = good_steps >= self.GROW_AFTER
        factor = tf.where(good, tf.where(grow, self.factor * 2, self.factor), self.factor / 2)
        self.factor.assign(tf.clip_by_value(factor, 1.0, self.GREATEST))
        self.good_steps.assign(tf.where(grow, 0, good_steps))


class TrainingStep:
    """A callable `(batch, step, loss scale) -> [len(names)] float32` that updates the encoder.

    To be called in the strategy's replica context with this replica's part of the batch. A step whose loss or gradients
    are not finite changes nothing; `good` is then 0. What it returns is the sums `names`, the task's and EXTRA, as one
    vector: devices and accumulated parts then add up one tensor.

    xla: compiles all of it on one device; on several, forward and backward pass, while sums over devices and the update
    stay outside, where they are safe.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        task: Task,
        encoder: BertEncoder,
        optimizer: Optimizer,
        replicas: int,
        xla: bool = False,
    ):
        self.settings, self.task, self.encoder = settings, task, encoder
        self.optimizer, self.replicas = optimizer, replicas
        self.names = (*task.sum_names, *EXTRA)
        require(len(set(self.names)) == len(self.names), "each sum must have a name of its own", self.names)
        whole, part = xla and replicas == 1, xla and replicas > 1
        self._update = tf.function(self._updated, jit_compile=True, autograph=False) if whole else self._updated
        self._compute = tf.function(self._gradients, jit_compile=True, autograph=False) if part else self._gradients
        self._apply = optimizer.apply_compiled if whole else optimizer.apply
        self._variables = [variable.value for variable in encoder.trainable_variables]
        paths = [variable.path for variable in encoder.trainable_variables]
        word = encoder.embeddings.word.path
        self._word = paths.index(word) if word in paths else None  # where it is trained

    def __call__(self, batch, step: tf.Tensor, loss_scale: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group if self.replicas > 1 else 0
        seed = tf.random.experimental.stateless_fold_in(tf.constant([self.settings.seed, 0], tf.int32), step, PHILOX)
        seed = tf.random.experimental.stateless_fold_in(seed, replica, PHILOX)
        return self._update(batch, step, seed, loss_scale)

    def _updated(self, batch, step, seed, loss_scale):
        settings, context = self.settings, tf.distribute.get_replica_context()
        totals = self.task.totals(batch)
        if self.replicas > 1:
            vector = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(list(totals.values())))
            totals = dict(zip(totals, tf.unstack(vector), strict=True))
        if settings.accumulate == 1:
            sums, gradients = self._compute(batch, totals, seed, loss_scale)
        else:
            sums, gradients = self._accumulated(batch, totals, seed, loss_scale)
        if self.replicas > 1:
            sums, *gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, [sums, *gradients])

        norm = tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients])) / loss_scale
        good = tf.math.is_finite(norm) & tf.reduce_all(tf.math.is_finite(sums))
        clip = tf.minimum(1.0, settings.clip_norm / norm) if settings.clip_norm else 1.0
        self._apply(gradients, step, clip / loss_scale, good)
        return tf.concat([sums, [norm, tf.cast(good, tf.float32)]], 0)

    def _accumulated(self, batch, totals, seed, loss_scale):
        """The same as `_gradients`, over parts of the batch one after the other."""
        parts = self.settings.accumulate
        batch = {name: _cut(value, parts) for name, value in batch.items()}
        sums = tf.zeros([len(self.names) - 2])
        gradients = [tf.zeros_like(variable) for variable in self._variables]

        def one(part, sums, gradients):
            part_seed = tf.random.experimental.stateless_fold_in(seed, part, PHILOX)
            part_sums, part_gradients = self._compute(
                {name: value[part] for name, value in batch.items()}, totals, part_seed, loss_scale
            )
            totalled = [total + gradient for total, gradient in zip(gradients, part_gradients, strict=True)]
            return part + 1, sums + part_sums, totalled

        return tf.while_loop(lambda part, *_: part < parts, one, (tf.constant(0), sums, gradients))[1:]

    def _gradients(self, batch, totals, seed, loss_scale):
        """(sums, all but the last two of `names`; dense gradients of the scaled loss) of a part of the batch whose
        `totals` are given."""
        encoder, task = self.encoder, self.task
        ids, mask = batch[features.INPUT_IDS], batch[features.INPUT_MASK]
        # The word embedding is used twice. Its gradient from the logits is dense, that from the lookup touches a row
        # for each token: taking the two apart saves a dense gradient of zeros and a sum over the whole table.
        words = encoder.embeddings.lookup(ids)
        sources = self._variables if self._word is None else [*self._variables, words]
        with tf.GradientTape() as tape:
            tape.watch(words)
            sums = task.sums(encoder, batch, training=True, seed=seed, words=words, recompute=self.settings.recompute)
            loss = task.loss(sums, totals) * loss_scale
        gradients = tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        if self._word is not None:
            *gradients, lookup = gradients
            gradients[self._word] = tf.tensor_scatter_nd_add(gradients[self._word], ids[..., None], lookup)
        counts = [tf.cast(tf.reduce_sum(values), tf.float32) for values in (mask[:, 0], mask)]
        return tf.stack([*(sums[name] for name in task.sum_names), *counts]), gradients


def _cut(values, parts):
    """[B, ...] -> [parts, B / parts, ...], where sizes may be known only when it runs (buckets)."""
    batch, *rest = (tf.shape(values)[axis] if size is None else size for axis, size in enumerate(values.shape))
    return tf.reshape(values, [parts, batch // parts, *rest])
