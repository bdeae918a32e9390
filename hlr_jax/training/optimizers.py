"""Optax optimizers and learning-rate schedules, whose numbers are traced."""

import types
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from hlr_jax.config import Config
from hlr_jax.parallel.layout import ALONE, Layout

# Names of tables that stay as they start.
Frozen = tuple[str, ...]
# `{"user": [U], "item": [I]}`, how many training interactions each row of a table has.
Counts = Mapping[str, Int[np.ndarray, "rows"]]
NO_COUNTS: Counts = types.MappingProxyType({})


@runtime_checkable
class Optimizer(Protocol):
    """What builds an Optax optimizer, within a program."""

    def transformation(self, layout: Layout = ALONE) -> optax.GradientTransformation:
        """Build the optimizer for parameters `{"user": ..., "item": ..., "relation": ...}`.

        Frozen tables get no update and no optimizer state.

        Args:
          layout: how the tables are spread over devices.
        """

    def slowed(self, factor: float) -> "Optimizer":
        """Return the same with all learning rates multiplied by `factor`."""


class Schedule(struct.PyTreeNode):
    """The learning rate as a function of the step: linear warm-up, then a named schedule.

    Optax's own schedules branch on their numbers in Python, so that each would be compiled again.

    Attributes:
      name: constant, exponential (times `decay_rate` per epoch) or cosine (to 0 after
        `decay_steps`).
      has_warmup: whether there are steps of warm-up.
    """

    name: str = struct.field(pytree_node=False)
    has_warmup: bool = struct.field(pytree_node=False)
    learning_rate: Any
    decay_rate: Any
    warmup_steps: Any
    decay_steps: Any
    steps_per_epoch: Any

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Compute the rate of a step, counted from 0."""
        step = jnp.asarray(step, jnp.float32)
        after = step - self.warmup_steps
        factor: Any = 1.0
        if self.name == "exponential":
            factor = self.decay_rate ** jnp.floor(after / self.steps_per_epoch)
        elif self.name == "cosine":
            done = jnp.minimum(after / jnp.maximum(self.decay_steps - self.warmup_steps, 1), 1)
            factor = 0.5 * (1 + jnp.cos(jnp.pi * done))
        if self.has_warmup:
            rising = step / jnp.maximum(self.warmup_steps, 1)
            factor = jnp.where(step < self.warmup_steps, rising, factor)
        return jnp.asarray(self.learning_rate * factor, jnp.float32)

    @property
    def is_constant(self) -> bool:
        return self.name == "constant" and not self.has_warmup


class NamedOptimizer(struct.PyTreeNode):
    """An optimizer that the configuration names.

    Attributes:
      name: adam, adamw, adagrad or sgd.
      clips: whether gradients are scaled down to a norm of `gradient_clip`.
      decays_by_frequency: whether the weight decay of a row depends on its interactions.
      frozen: tables that stay as they start.
      frequencies: `{"user": [U], "item": [I]}`, the `relative_frequency` of each row; empty where
        weights do not decay by it.
    """

    name: str = struct.field(pytree_node=False)
    clips: bool = struct.field(pytree_node=False)
    decays_by_frequency: bool = struct.field(pytree_node=False)
    frozen: Frozen = struct.field(pytree_node=False)
    schedule: Schedule
    weight_decay: Any
    weight_decay_exponent: Any
    frequencies: dict[str, Any]
    gradient_clip: Any

    @classmethod
    def of(
        cls, config: Config, steps_per_epoch: int, counts: Counts = NO_COUNTS
    ) -> "NamedOptimizer":
        """Build what a configuration asks for.

        Args:
          counts: of interactions, read where `config.optimizer.weight_decay_exponent` is not 0.
        """
        chosen = config.optimizer
        warmup = round(chosen.warmup_epochs * steps_per_epoch)
        epochs = chosen.schedule_epochs or config.training.epochs
        schedule = Schedule(
            name=chosen.schedule,
            has_warmup=bool(warmup),
            learning_rate=chosen.learning_rate,
            decay_rate=chosen.decay_rate,
            warmup_steps=float(warmup),
            decay_steps=float(epochs * steps_per_epoch),
            steps_per_epoch=float(steps_per_epoch),
        )
        by_frequency = bool(chosen.weight_decay_exponent)
        tables = ("user", "item") if by_frequency else ()
        return cls(
            name=chosen.name,
            clips=bool(chosen.gradient_clip),
            decays_by_frequency=by_frequency,
            frozen=frozen_tables(config),
            schedule=schedule,
            weight_decay=chosen.weight_decay,
            weight_decay_exponent=chosen.weight_decay_exponent,
            frequencies={name: relative_frequency(counts[name]) for name in tables},
            gradient_clip=chosen.gradient_clip,
        )

    def transformation(self, layout: Layout = ALONE) -> optax.GradientTransformation:
        """See `Optimizer`."""
        schedule = self.schedule
        rate = schedule.learning_rate if schedule.is_constant else schedule
        if self.name == "adam":
            optimizer = optax.adam(rate)
        elif self.name == "adamw" and self.decays_by_frequency:
            optimizer = optax.chain(
                optax.scale_by_adam(),
                _decay_by_frequency(
                    self.weight_decay, self.weight_decay_exponent, self.frequencies
                ),
                optax.scale_by_learning_rate(rate),
            )
        elif self.name == "adamw":
            optimizer = optax.adamw(rate, weight_decay=self.weight_decay)
        elif self.name == "adagrad":
            optimizer = optax.adagrad(rate)
        else:
            optimizer = optax.sgd(rate)
        if self.clips:
            optimizer = optax.chain(_clip_by_norm(self.gradient_clip, layout), optimizer)
        return _without(self.frozen, optimizer)

    def slowed(self, factor: float) -> "NamedOptimizer":
        """See `Optimizer`. The rate is traced: nothing is compiled again."""
        rate = self.schedule.learning_rate * factor
        return self.replace(schedule=self.schedule.replace(learning_rate=rate))


class GivenOptimizer(struct.PyTreeNode):
    """An Optax transformation that the caller of `train` gave.

    Attributes:
      frozen: tables that stay as they start.
      factor: of its updates, which stands for a factor of its learning rates.
    """

    given: optax.GradientTransformation = struct.field(pytree_node=False)
    frozen: Frozen = struct.field(pytree_node=False)
    # Not traced: where it is 1, nothing is multiplied.
    factor: float = struct.field(pytree_node=False, default=1.0)

    def transformation(self, layout: Layout = ALONE) -> optax.GradientTransformation:
        """See `Optimizer`."""
        given = self.given if self.factor == 1 else _scaled(self.given, self.factor)
        return _without(self.frozen, given)

    def slowed(self, factor: float) -> "GivenOptimizer":
        """See `Optimizer`. Steps are compiled again."""
        return self.replace(factor=self.factor * factor)


def frozen_tables(config: Config) -> Frozen:
    """Name the tables that stay as they start."""
    frozen = {"user": config.training.freeze_user, "item": config.training.freeze_item}
    return tuple(name for name, is_frozen in frozen.items() if is_frozen)


def _scaled(optimizer: optax.GradientTransformation, factor: float) -> optax.GradientTransformation:
    """Multiply an optimizer's updates; its state stays as it is, unlike that of `optax.chain`."""

    def update(updates: Any, state: optax.OptState, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, state, params)
        return jax.tree.map(lambda x: x * factor, updates), state

    return optax.GradientTransformation(optimizer.init, update)


def _without(
    frozen: Frozen, optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    if not frozen:
        return optimizer
    labels = {
        name: "frozen" if name in frozen else "trained" for name in ("user", "item", "relation")
    }
    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def relative_frequency(counts: Int[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Divide the interactions of each row by their mean over the rows that have any."""
    mean = counts.sum() / max(1, np.count_nonzero(counts))
    return (counts / max(1.0, mean)).astype(np.float32)


class FrequencyState(NamedTuple):
    """What `_decay_by_frequency` knows of each row, spread over devices as the row is.

    Attributes:
      frequency: in the tree of the parameters: `[rows, 1]`, the `relative_frequency` of each row
        of a table, 0 for rows that fill shards up; 1 for other parameters, in as many axes.
    """

    frequency: Any


def _decay_by_frequency(
    weight_decay: Any, exponent: Any, frequencies: Mapping[str, Any]
) -> optax.GradientTransformation:
    """Add `weight_decay * f^exponent * x` to the update of a row `x` of relative frequency `f`.

    The regularisation scaled by frequency of "Revisiting the Performance of iALS on Item
    Recommendation Benchmarks" (Rendle et al., RecSys 2022), `lambda n^nu`, as a decoupled decay and
    without their share of unobserved pairs. Adam divides by the size of a gradient, which grows
    with `n` where theirs does too: `exponent` is about their `nu - 1`. Rows without interactions,
    and what is not a table, decay as `optax.adamw` has it.
    """

    def init(params: Any) -> FrequencyState:
        def of_array(path: Any, x: Array) -> Array:
            if path[0].key not in frequencies:
                return jnp.ones((1,) * x.ndim)
            known = jnp.asarray(frequencies[path[0].key])
            return jnp.pad(known, (0, len(x) - len(known)))[:, None]

        return FrequencyState(jax.tree_util.tree_map_with_path(of_array, params))

    def update(updates: Any, state: FrequencyState, params: Any = None) -> tuple[Any, Any]:
        def decayed(update: Array, frequency: Array, x: Array) -> Array:
            factor = jnp.where(frequency > 0, frequency, 1) ** exponent
            return update + weight_decay * factor * x

        return jax.tree.map(decayed, updates, state.frequency, params), state

    return optax.GradientTransformation(init, update)


def _clip_by_norm(most: Any, layout: Layout) -> optax.GradientTransformation:
    """Do as `optax.clip_by_global_norm`, for a gradient of which devices have different rows."""
    axes = {"user": layout.user, "item": layout.item}

    def clip(updates: Any, state: optax.OptState, params: Any = None) -> tuple[Any, Any]:
        def square(name: str) -> Array:
            total = optax.tree.norm(updates[name], squared=True)
            return jax.lax.psum(total, axes[name]) if axes.get(name) else total

        norm = jnp.sqrt(sum(map(square, updates), jnp.zeros(())))
        scale = jnp.where(norm < most, 1.0, most / norm)
        return jax.tree.map(lambda x: x * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), clip)


def of_state(
    optimizer: optax.GradientTransformation, opt_state: optax.OptState, of_params: Any, other: Any
) -> Any:
    """Describe an optimizer's state by a description of the parameters, in the same tree.

    Args:
      of_params: one value for each array of the parameters.
      other: the value for what is not shaped as parameters, as a count of steps.
    """

    def is_masked(x: Any) -> bool:
        # A frozen table has no state: a masked node stands in its place.
        return isinstance(x, optax.MaskedNode)

    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda x, value: x if is_masked(x) else value,
        opt_state,
        of_params,
        transform_non_params=lambda _: other,
        is_leaf=is_masked,
    )
