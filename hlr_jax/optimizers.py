"""Optax optimizers and schedules by name."""

import optax

from hlr_jax.config import OptimizerConfig, TrainingConfig


def schedule(config: OptimizerConfig, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """The learning rate as a function of the step: linear warm-up, then the named schedule."""
    rate = config.learning_rate
    warmup = round(config.warmup_epochs * steps_per_epoch)
    after: optax.Schedule
    if config.schedule == "exponential":
        after = optax.exponential_decay(rate, steps_per_epoch, config.decay_rate, staircase=True)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(rate, max(epochs * steps_per_epoch - warmup, 1))
    else:
        after = optax.constant_schedule(rate)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup])


def build(
    config: OptimizerConfig, training: TrainingConfig, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optimizer for parameters `{"user": ..., "item": ..., "relation": ...}`.

    Frozen tables get no update and no optimizer state.
    """
    rate = schedule(config, steps_per_epoch, training.epochs)
    if config.name == "adam":
        optimizer = optax.adam(rate)
    elif config.name == "adamw":
        optimizer = optax.adamw(rate, weight_decay=config.weight_decay)
    elif config.name == "adagrad":
        optimizer = optax.adagrad(rate)
    else:
        optimizer = optax.sgd(rate)
    if config.gradient_clip:
        optimizer = optax.chain(optax.clip_by_global_norm(config.gradient_clip), optimizer)
    frozen = {"user": training.freeze_user, "item": training.freeze_item, "relation": False}
    if not any(frozen.values()):
        return optimizer
    labels = {name: "frozen" if is_frozen else "trained" for name, is_frozen in frozen.items()}
    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
