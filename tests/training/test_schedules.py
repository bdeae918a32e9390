"""Learning-rate schedules: the formulas, and the schedules of Optax of the same meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hlr_jax.config import Config, OptimizerConfig, TrainingConfig
from hlr_jax.training.optimizers import NamedOptimizer, Schedule


def schedule_of(epochs: int = 5, **fields: float | str) -> Schedule:
    """Of a configuration, with 10 steps an epoch and a rate of 0.2."""
    config = Config(
        optimizer=OptimizerConfig(learning_rate=0.2, **fields),
        training=TrainingConfig(epochs=epochs),
    )
    return NamedOptimizer.of(config, steps_per_epoch=10).schedule


every_rate = jax.jit(lambda schedule, steps: jax.vmap(schedule)(steps))


def rates(schedule: Schedule, steps: list[int]) -> np.ndarray:
    return np.asarray(every_rate(schedule, jnp.asarray(steps, jnp.int32)))


def test_constant_schedule():
    np.testing.assert_allclose(rates(schedule_of(), [0, 1, 49, 1000]), 0.2, rtol=1e-6)


def test_exponential_schedule_is_a_staircase_of_epochs():
    schedule = schedule_of(schedule="exponential", decay_rate=0.9)
    expected = 0.2 * 0.9 ** np.array([0, 0, 1, 1, 2, 4])
    np.testing.assert_allclose(rates(schedule, [0, 9, 10, 19, 20, 49]), expected, rtol=1e-6)


def test_cosine_schedule_reaches_zero_at_the_end_of_the_last_epoch():
    actual = rates(schedule_of(schedule="cosine"), [0, 10, 25, 49, 50, 60])
    expected = 0.1 * (1 + np.cos(np.pi * np.array([0, 10, 25, 49, 50, 50]) / 50))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-8)
    assert rates(schedule_of(2, schedule="cosine"), [19])[0] > 0
    np.testing.assert_allclose(rates(schedule_of(2, schedule="cosine"), [20]), 0, atol=1e-8)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("constant", [0.2, 0.2, 0.2, 0.2]),
        ("exponential", [0.2, 0.2, 0.18, 0.162]),
        ("cosine", [0.2, *(0.1 * (1 + np.cos(np.pi * np.array([9, 10, 20]) / 35)))]),
    ],
)
def test_warm_up_is_linear_and_the_schedule_begins_after_it(schedule, after):
    """1.5 epochs are 15 steps; cosine has 35 left of 50."""
    warmed = schedule_of(schedule=schedule, decay_rate=0.9, warmup_epochs=1.5)
    expected = [*(0.2 * np.array([0, 1, 6, 14]) / 15), *after]
    actual = rates(warmed, [0, 1, 6, 14, 15, 24, 25, 35])
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-9)


def test_cosine_after_warm_up_ends_with_the_last_epoch():
    last, end = rates(schedule_of(schedule="cosine", warmup_epochs=1.0), [49, 50])
    assert last > 0
    assert abs(end) < 1e-8


def test_cosine_takes_its_own_number_of_epochs():
    """Longer than the run, or shorter: then nothing moves any more."""
    for own in (3, 8):
        schedule = schedule_of(schedule="cosine", schedule_epochs=own)
        steps = np.array([0, 10, 29, 45])
        expected = 0.1 * (1 + np.cos(np.pi * np.minimum(steps / (10 * own), 1)))
        actual = rates(schedule, steps.tolist())
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("warmup", [0, 1, 15])
def test_schedules_are_those_of_optax(warmup):
    """At every step, and long after the last epoch."""
    of_optax = {
        "constant": optax.constant_schedule(0.2),
        "exponential": optax.exponential_decay(0.2, 10, 0.9, staircase=True),
        "cosine": optax.cosine_decay_schedule(0.2, 50 - warmup),
    }
    steps = list(range(200))
    for name, schedule in of_optax.items():
        if warmup:
            rising = optax.linear_schedule(0.0, 0.2, warmup)
            schedule = optax.join_schedules([rising, schedule], [warmup])
        with jax.numpy_dtype_promotion("standard"):
            expected = jax.vmap(schedule)(jnp.asarray(steps))
        ours = schedule_of(schedule=name, decay_rate=0.9, warmup_epochs=warmup / 10)
        np.testing.assert_allclose(rates(ours, steps), expected, rtol=1e-5, atol=2e-8, err_msg=name)
        assert ours.is_constant == (name == "constant" and not warmup)
