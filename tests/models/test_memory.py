"""What keeps the slots of a memory apart: the penalty in a step, and options that are refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from support.cases import Case, Setting, as_oracle_params

from hlr_jax.errors import InputError
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models import RELATIONS, History
from hlr_jax.models.relation import apply
from hlr_jax.training.exchange import DenseExchange, SparseExchange
from hlr_jax.training.neighbours import NoNeighbours
from hlr_jax.training.optimizers import GivenOptimizer
from hlr_jax.training.state import TrainState
from hlr_jax.training.step import train_step

FORMED = {"slot_form": "centred", "slot_norm": 0.7}


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_step_adds_the_similarity_of_all_memories_once(is_sparse: bool, reduction: str) -> None:
    """Of the slots as relations read them, whatever the reduction, and to nothing else."""
    options = FORMED | {"separate_user_memory": True}

    def after(weight: float) -> dict[str, np.ndarray]:
        case = Case("hlr", options | {"similarity_weight": weight})
        objective = Setting(Hinge(0.5), reduction=reduction).objective(case.model)
        optimizer = GivenOptimizer(optax.sgd(1.0), ())
        state = TrainState.of(case.jax_params(), optimizer)
        exchange = SparseExchange.of(state.params) if is_sparse else DenseExchange()
        batch = case.jax_batch()
        step = jax.jit(train_step)(state, batch, objective, optimizer, exchange, NoNeighbours())
        return as_oracle_params(step[0].params)

    def penalty(params: Any) -> float:
        memories = (params["memory"], params["user_memory"])
        return sum(
            oracles.slot_similarity(oracles.formed_slots(x, "centred", 0.7)) for x in memories
        )

    plain, found = after(0.0), after(3.0)
    expected = oracles.numerical_gradient(penalty, Case("hlr", options).params)
    for name, x in found.items():
        np.testing.assert_allclose(plain[name] - x, 3 * expected[name], atol=2e-5)
        assert (np.abs(expected[name]).max() > 0.01) == name.endswith("memory")


@pytest.mark.parametrize("name", ["lrml", "hlr", "hlrpp"])
def test_equal_slot_weights_of_centred_slots_are_no_relation(name: str) -> None:
    """With a key of zero; of free slots they read the mean slot."""

    def relation(**options: Any) -> Any:
        case = Case(name, options)
        params = case.jax_params()
        own = params["relation"] | {"key": jnp.zeros_like(params["relation"]["key"])}
        rows = params["item"][case.items]
        history = History(rows[:, 1:], jnp.ones((len(rows), rows.shape[1] - 1), bool))
        if not case.model.uses_history:
            history = History.empty(rows[:, 0])
        user = params["user"][case.users]
        return apply(case.model, own, "__call__", user, rows[:, 0], history)

    assert np.abs(relation()).max() > 0.01
    for norm in (0.0, 0.7):
        # Scaled to one norm the slots do not sum to zero any more.
        found = np.abs(relation(slot_form="centred", slot_norm=norm)).max()
        assert (found < 1e-6) == (norm == 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slot_form": "apart"}, "config.model.slot_form='apart': use one of free, centred, "),
        (
            {"slot_form": "orthogonal", "slots": 5},
            "config.model.slots=5: use at most config.model.",
        ),
        ({"slot_form": "centred", "slots": 1}, "config.model.slots=1: use 2 or more"),
        ({"slot_norm": -1.0}, "config.model.slot_norm=-1.0: use 0 or more"),
        ({"similarity_weight": -1.0}, "config.model.similarity_weight=-1.0: use 0 or more"),
        ({"key_scale": 0.0}, "config.model.key_scale=0.0: use a factor above 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        RELATIONS.build("lrml", options, dim=4)
    assert message in str(error.value)
