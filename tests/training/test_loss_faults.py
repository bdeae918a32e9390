"""Losses of other packages that return a wrong shape or no number: one line, nothing written."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float
from support.small_runs import Run, config_of, planted

from hlr_jax.config import LossConfig
from hlr_jax.errors import InputError
from hlr_jax.functional.losses import LOSSES, Loss, NegativeDistances
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.runs import experiment
from hlr_jax.runs.probes import check_loss


class OneNumber(Loss):
    """Sums over the batch."""

    def __call__(self, positive: Any, negatives: NegativeDistances) -> Any:
        return jnp.sum(positive)


class OneOfEachNegative(Loss):
    """Forgets to sum over negatives."""

    def __call__(self, positive: Any, negatives: NegativeDistances) -> Any:
        return jax.nn.relu(positive[..., None] - negatives.values + 0.5)


class TermsOfEachNegative(Loss):
    """Counts terms of a wrong shape."""

    def __call__(self, positive: Float[Array, "*b"], negatives: NegativeDistances) -> Any:
        return positive

    def num_terms(self, positive: Float[Array, "*b"], negatives: NegativeDistances) -> Any:
        return negatives.mask.astype(positive.dtype)


class MeanOfNone(Loss):
    """Divides by how many negatives count, which may be none."""

    def __call__(self, positive: Float[Array, "*b"], negatives: NegativeDistances) -> Any:
        values, mask, _ = negatives
        number = jnp.sum(mask, axis=-1, dtype=positive.dtype)
        return positive - jnp.sum(jnp.where(mask, values, 0), axis=-1) / number


class LogOfDistance(Loss):
    """Is infinite at a distance of 0."""

    def __call__(self, positive: Float[Array, "*b"], negatives: NegativeDistances) -> Any:
        return jnp.log(positive)


FAULTS = [
    (OneNumber, r"returned a loss of shape \(\), not \(3,\); return one number for each positive"),
    (OneOfEachNegative, r"returned a loss of shape \(3, 2\), not \(3,\); return one number"),
    (TermsOfEachNegative, r"returned num_terms of shape \(3, 2\), not \(3,\); return one number"),
    (MeanOfNone, r"returned a loss that is not finite .*where no negative counts; mask"),
    (LogOfDistance, r"returned a loss that is not finite for squared distances from 0"),
]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every faulty loss by the name of its class, for one test."""
    known = LOSSES._classes | {cls.__name__: cls for cls, _ in FAULTS}
    monkeypatch.setattr(LOSSES, "_classes", known)


@pytest.mark.parametrize(("cls", "fault"), FAULTS, ids=[cls.__name__ for cls, _ in FAULTS])
def test_a_faulty_loss_is_refused_in_a_line(cls, fault, registered, tmp_path):
    """When it is checked, and by a run that uses it, which writes nothing."""
    name = cls.__name__
    with pytest.raises(InputError, match=f"config.loss.name='{name}': .*{name} {fault}") as caught:
        check_loss(cls(), name)
    assert "\n" not in str(caught.value)

    config = dataclasses.replace(config_of(), loss=LossConfig(name=name))
    with pytest.raises(InputError) as again:
        experiment.train(config, tmp_path / "run", planted(), show_progress=False)
    assert str(again.value) == str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_right_passes():
    class Plain(Hinge):
        """A loss of another package."""

    check_loss(Plain(), "plain")
    for name in LOSSES.names():
        check_loss(LOSSES.build(name, {}), name)


@pytest.mark.parametrize("cls", [OneNumber, OneOfEachNegative, TermsOfEachNegative])
def test_a_step_refuses_a_wrong_shape_too(cls):
    """Where a loss is used without a configuration."""
    run = Run.of(config_of())
    recipe = run.recipe.replace(objective=run.recipe.objective.replace(loss=cls()))
    faulty = Run(run.config, dataclasses.replace(run.program, recipe=recipe))
    with pytest.raises(
        InputError, match=f"config.loss.name: .*{cls.__name__} returned a"
    ) as caught:
        faulty.fit()
    assert "\n" not in str(caught.value)
