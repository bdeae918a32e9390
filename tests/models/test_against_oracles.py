"""Every model against the oracle, with each of its options and in each geometry."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import oracles
import pytest
from support.cases import (
    CHOICES,
    GEOMETRIES,
    NOT_IN_RELATION,
    VARIANTS_IN_GEOMETRIES,
    Case,
    Setting,
    assert_close,
    variants,
    with_options,
)

from hlr_jax.functional.geometry import GEOMETRIES as REGISTERED
from hlr_jax.functional.losses.hinge import Hinge, Warp
from hlr_jax.models import RELATIONS

OWN = Setting(Hinge(0.5), reduction="mean", covariance=0.7)
COPIED = Setting(Warp(0.5), copy_relation=True)
ALONE = Setting(Hinge(0.5))


def test_no_model_and_no_geometry_of_the_library_is_left_out() -> None:
    models = pathlib.Path(__file__).parents[2] / "hlr_jax" / "models"
    own = [name for name in RELATIONS.names() if RELATIONS.get(name).__module__.startswith("hlr_")]
    assert set(own) == set(CHOICES)
    registering = [file for file in models.glob("*.py") if "\n@register" in file.read_text()]
    assert len(registering) == len(CHOICES)
    assert set(REGISTERED.names()) >= set(GEOMETRIES) == {"ball", "sphere", "lorentz"}


@pytest.mark.parametrize("name", CHOICES)
def test_every_option_is_tested(name: str) -> None:
    assert set(RELATIONS.options(name)) - NOT_IN_RELATION == set(CHOICES[name])


def check(case: Case, setting: Setting, every_entry: bool = False) -> None:
    """Distances, loss, its terms, its gradient and scores are the oracle's, in double precision."""
    case.check_hinges(setting)
    found = case.everything(setting)
    np.testing.assert_allclose(found.distances, case.distances(setting.copy_relation), rtol=1e-9)
    # An item that is all of a history has a distance of 0 to where a user without a row is.
    np.testing.assert_allclose(found.scores, case.scores(), rtol=1e-9, atol=1e-14)

    # Covariance is added to the gradient of a step, not to the loss that is reported.
    summed = setting._replace(reduction="sum", covariance=0.0)
    counted = case.negative_mask[case.row_mask == 1].sum()
    terms = 4 if isinstance(setting.loss, Warp) else counted
    np.testing.assert_allclose(found.loss, case.loss(case.params, summed), rtol=1e-9)
    np.testing.assert_array_equal(found.terms, terms)
    mean = case.loss(case.params, summed._replace(reduction="mean"))
    np.testing.assert_allclose(found.loss / terms, mean, rtol=1e-9)

    if every_entry:
        expected = oracles.numerical_gradient(lambda p: case.loss(p, setting), case.params)
        for key, table in expected.items():
            np.testing.assert_allclose(found.gradient[key], table, rtol=1e-6, atol=1e-8)
        return
    directions = [
        {key: np.random.default_rng(n).normal(size=x.shape) for key, x in case.params.items()}
        for n in range(2)
    ]

    def along(t: Mapping[str, np.ndarray]) -> float:
        moved = {
            key: x + sum(t["t"][n] * v[key] for n, v in enumerate(directions))
            for key, x in case.params.items()
        }
        return case.loss(moved, setting)

    expected = oracles.numerical_gradient(along, {"t": np.zeros(2)})["t"]
    actual = [sum((found.gradient[key] * v[key]).sum() for key in v) for v in directions]
    assert_close(actual, expected, 1e-6)


@pytest.mark.parametrize(("name", "options", "geometry"), VARIANTS_IN_GEOMETRIES)
def test_distances_loss_gradient_and_scores_match_the_oracle(
    name: str, options: dict[str, Any], geometry: str
) -> None:
    """Each negative has a relation of its own; the gradient along random directions."""
    check(Case(name, options, geometry), OWN)


DEFAULTS = [with_options(name, variants(name)[0]) for name in RELATIONS.names()]


@pytest.mark.parametrize(("name", "options"), DEFAULTS)
def test_a_copied_relation_matches_the_oracle(name: str, options: dict[str, Any]) -> None:
    """With the rank weight, and no penalty on the tables."""
    check(Case(name, options), COPIED)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(("name", "options"), DEFAULTS)
def test_the_gradient_matches_the_oracle_in_every_entry(
    name: str, options: dict[str, Any], geometry: str
) -> None:
    """The program is the one of the gradient along random directions, with other numbers."""
    check(Case(name, options, geometry), OWN, every_entry=True)


def test_some_translated_users_are_brought_back_into_the_ball_and_some_are_not() -> None:
    """Or the tests of history_mean would say little; of an empty history the mean is zero."""
    case = Case("history_mean", {"clip_translated": 100.0})
    moved = []
    for user, ids in zip(case.users, case.history, strict=True):
        row, history = case.params["user"][user], [case.params["item"][i] for i in ids if i >= 0]
        moved.append(row + oracles.history_mean_relation(row, history, 1.0, 100.0))
    norms = np.linalg.norm(moved, axis=1)
    assert norms.min() < 0.99 < 1.01 < norms[2] < norms.max() < 3
    np.testing.assert_array_equal(moved[2], case.params["user"][case.users[2]])
