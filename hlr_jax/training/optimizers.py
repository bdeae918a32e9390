"""Optax optimizers and learning-rate schedules, whose numbers are traced."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from hlr_jax.config import Config
from hlr_jax.parallel.layout import ALONE, Layout

# Names of tables that stay as they start.
Frozen = tuple[str, ...]


@runtime_checkable
class Optimizer(Protocol):
    """What builds an Optax optimizer, within a program."""

    def transformation(self, layout: Layout = ALONE) -> optax.GradientTransformation:
        """Build the optimizer for parameters `{"user": ..., "item": ..., "relation": ...}`.

        Frozen tables get no update and no optimizer state.

        Args:
          layout: how the tables are spread over devices.
        """


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
      frozen: tables that stay as they start.
    """

    name: str = struct.field(pytree_node=False)
    clips: bool = struct.field(pytree_node=False)
    frozen: Frozen = struct.field(pytree_node=False)
    schedule: Schedule
    weight_decay: Any
    gradient_clip: Any

    @classmethod
    def of(cls, config: Config, steps_per_epoch: int) -> "NamedOptimizer":
        """Build what a configuration asks for."""
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
        return cls(
            name=chosen.name,
            clips=bool(chosen.gradient_clip),
            frozen=frozen_tables(config),
            schedule=schedule,
            weight_decay=chosen.weight_decay,
            gradient_clip=chosen.gradient_clip,
        )

    def transformation(self, layout: Layout = ALONE) -> optax.GradientTransformation:
        """See `Optimizer`."""
        schedule = self.schedule
        rate = schedule.learning_rate if schedule.is_constant else schedule
        if self.name == "adam":
            optimizer = optax.adam(rate)
        elif self.name == "adamw":
            optimizer = optax.adamw(rate, weight_decay=self.weight_decay)
        elif self.name == "adagrad":
            optimizer = optax.adagrad(rate)
        else:
            optimizer = optax.sgd(rate)
        if self.clips:
            optimizer = optax.chain(_clip_by_norm(self.gradient_clip, layout), optimizer)
        return _without(self.frozen, optimizer)


class GivenOptimizer(struct.PyTreeNode):
    """An Optax transformation that the caller of `train` gave.

    Attributes:
      frozen: tables that stay as they start.
    """

    given: optax.GradientTransformation = struct.field(pytree_node=False)
    frozen: Frozen = struct.field(pytree_node=False)

    def transformation(self, layout: Layout = ALONE) -> optax.GradientTransformation:
        """See `Optimizer`."""
        return _without(self.frozen, self.given)


def frozen_tables(config: Config) -> Frozen:
    """Name the tables that stay as they start."""
    frozen = {"user": config.training.freeze_user, "item": config.training.freeze_item}
    return tuple(name for name, is_frozen in frozen.items() if is_frozen)


def _without(
    frozen: Frozen, optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    if not frozen:
        return optimizer
    labels = {
        name: "frozen" if name in frozen else "trained" for name in ("user", "item", "relation")
    }
    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


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
