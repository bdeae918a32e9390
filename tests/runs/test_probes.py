"""Faulty components of other packages are refused in a line, before anything is written."""

import re
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from support.small_runs import planted

from hlr_jax import config as configs
from hlr_jax.config import build
from hlr_jax.errors import InputError
from hlr_jax.functional.geometry import Geometry
from hlr_jax.functional.losses import Loss
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models import Relation
from hlr_jax.models.hlr import HLR
from hlr_jax.models.transcf import TransCF
from hlr_jax.runs import compatibility, experiment
from hlr_jax.sampling.samplers import PerExample, Sampler
from hlr_jax.types import PerExampleNegatives, SharedNegatives

BRANCH = r"options (.*, )?strength are floats, so they are arrays .*; use jnp.where .*\(/"


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    for section in build.NAME_FIELDS:
        registry = build.registry(section)
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))


def values_of(cls: Any, **fields: Any) -> dict[str, Any]:
    """A configuration that names a class, by the name of the class, once it is registered."""
    build.registry(cls.section).register(cls.__name__)(cls)
    values: dict[str, Any] = {"model": {"name": "cml", "dim": 6}}
    named = {build.NAME_FIELDS[cls.section]: cls.__name__}
    return values | {cls.section: values.get(cls.section, {}) | named} | fields


def check(cls: Any, **fields: Any) -> None:
    compatibility.check_config(configs.from_config_dict(values_of(cls, **fields)))


# --- relations -----------------------------------------------------------------------------------


class NoHistory(Relation):
    def __call__(self, user: Any, item: Any) -> Any:
        return item - user


class Nothing(Relation):
    strength: float = 1.0


class Numbers(Relation):
    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return jnp.sum(user * item, axis=-1)


class OneNumber(Relation):
    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return jnp.sum(user * item, axis=-1, keepdims=True)


class OnePair(Relation):
    """Whose rows of a single user have an axis too many."""

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        relation = user * item
        return relation[None] if relation.ndim == 1 else relation


class Logarithm(Relation):
    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return jnp.log(item) - user


class UnsaidHistory(Relation):
    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return jnp.mean(history.rows, axis=-2) + 0 * item


class MeanOfNone(UnsaidHistory):
    """Divides by how many places hold an item, which may be none."""

    uses_history: ClassVar[bool] = True

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        number = jnp.sum(history.mask, axis=-1, keepdims=True, dtype=user.dtype)
        total = jnp.sum(jnp.where(history.mask[..., None], history.rows, 0), axis=-2)
        return total / number + 0 * item


class Branching(Relation):
    strength: float = 0.5

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return item - user if self.strength > 0.2 else user * item


class NotCompact(Relation):
    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return self.param("w", nn.initializers.zeros, (self.dim,)) * user * item


class Raising(Relation):
    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return item @ jnp.ones((3, 3))


RELATIONS = [
    (NoHistory, r"__call__ does not take 3 arguments; define __call__\(self, user, item, history"),
    (Nothing, r" has no __call__ of its own; define __call__\(self, user, item, history\)$"),
    (Numbers, r" returned a relation of shape \(2, 3\), not \(2, 3, 6\); return a vector of d num"),
    (
        OneNumber,
        r" returned a relation of shape \(2, 3, 1\), not \(2, 3, 6\); return a vector of d",
    ),
    (OnePair, r" returned a relation of shape \(1, 6\), not \(6,\); return a vector of d numbers"),
    (Logarithm, " returned a relation that is not finite for rows of which one is zero; divide "),
    (UnsaidHistory, r" reads the history, .* empty; write uses_history: ClassVar\[bool\] = True$"),
    (MeanOfNone, r" returned a relation that is not finite .*may be 0 \(use jnp.where\)$"),
    (Branching, r"__call__: " + BRANCH),
    (NotCompact, r"__call__ raised ValueError: Parameters must be initialized in `setup\(\)` or "),
    (Raising, r"__call__ raised TypeError: dot_general .*test_probes.py:\d+\)$"),
]


# --- geometries ----------------------------------------------------------------------------------


class NoDistance(Geometry):
    pass


class Total(Geometry):
    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.abs(x - y))


class Quotient(Geometry):
    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(x * y, axis=-1) / jnp.sum(x * x, axis=-1)


class Cutting(Geometry):
    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.square(x - y), axis=-1)

    def embed(self, rows: Any) -> Any:
        return rows[..., 1:]


class BranchingGeometry(Geometry):
    strength: float = 0.5

    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.square(x - y), axis=-1) if self.strength else jnp.zeros(())


class FaultyProduct(NoDistance):
    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.square(x - y), axis=-1)

    def pairwise(self, x: Any, y: Any) -> Any:
        return x @ y


GEOMETRIES = [
    (NoDistance, r" has no distance of its own; define distance\(self, x, y\)$"),
    (Total, r" returned distances of shape \(\), not \(2, 4\); sum over the last axis alone"),
    (Quotient, " returned a distance that is not finite for rows of which one is zero"),
    (Cutting, r" returned rows from embed of shape \(5, 5\), not \(5, 6\); return as many as "),
    (BranchingGeometry, "distance: " + BRANCH),
    (FaultyProduct, "pairwise raised TypeError: dot_general"),
]


# --- samplers ------------------------------------------------------------------------------------


class Bare(Sampler):
    def draw(self, examples: Any, source: Any) -> Any:
        return examples.positives


class Unsaid(Sampler):
    def draw(self, examples: Any, source: Any) -> Any:
        return self.share(examples.positives, examples.users, source)


class NotKeys(Sampler):
    def draw(self, examples: Any, source: Any) -> Any:
        return jax.random.randint(examples.step_key, (5,), 0, source.num_items)


class Weights(Sampler):
    def draw(self, examples: Any, source: Any) -> Any:
        items = examples.positives[:, None]
        return PerExampleNegatives(items, jnp.ones(items.shape))


class OneMask(Sampler):
    is_shared: ClassVar[bool] = True

    def draw(self, examples: Any, source: Any) -> Any:
        return SharedNegatives(examples.positives, jnp.ones(len(examples.positives), bool))


class BranchingSampler(PerExample):
    strength: float = 0.5

    def draw(self, examples: Any, source: Any) -> Any:
        return super().draw(examples, source) if self.strength else None


class Unprepared(PerExample):
    def prepare(self, popularity: Any, seen: Any) -> Any:
        return popularity / 0 + seen.nothing


SAMPLERS = [
    (Bare, r"draw returned an array; with is_shared=False return PerExampleNegatives\(items, mas"),
    (Unsaid, "draw returned SharedNegatives; with is_shared=False return PerExampleNegatives"),
    (NotKeys, "draw raised TypeError: unexpected PRNG key type .*test_probes.py"),
    (Weights, " returned a mask of float32; use bool"),
    (
        OneMask,
        r" returned a mask of shape \(12,\), not \(12, 12\); return items \[N\] and a mask for ",
    ),
    (BranchingSampler, "draw: " + BRANCH),
    (Unprepared, "prepare raised AttributeError: 'Interactions' object has no attribute 'nothing'"),
]


class Square(Sampler):
    def targets(self, key: Any, source: Any) -> Any:
        return jnp.zeros((2, 3), jnp.int32)


class Wide(Sampler):
    def targets(self, key: Any, source: Any) -> Any:
        return jnp.arange(3.0)


@pytest.mark.parametrize(
    ("cls", "fault"),
    [
        (Square, r" returned targets of shape \(2, 3\), not \(6,\); return items \[N\]"),
        (Wide, " returned targets of float32; use int32"),
    ],
)
def test_targets_of_users_are_tried_too(cls: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        check(cls, training={"batch_of": "users"})


# --- losses; wrong shapes and numbers are in test_loss_faults.py ----------------------------------


class BranchingLoss(Hinge):
    strength: float = 0.5

    def __call__(self, positive: Any, negatives: Any) -> Any:
        return positive if self.strength > 0.2 else 2 * positive


class Misnamed(Loss):
    def __call__(self, positive: Any, negatives: Any) -> Any:
        return negatives.distances


LOSSES = [
    (BranchingLoss, "__call__: " + BRANCH),
    (Misnamed, "__call__ raised AttributeError: .*has no attribute 'distances'.*test_probes.py:"),
]


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(
    ("cls", "fault"),
    [*RELATIONS, *GEOMETRIES, *SAMPLERS, *LOSSES],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_faulty_component_is_refused_in_a_line(cls: Any, fault: str) -> None:
    field = f"config.{cls.section}.{build.NAME_FIELDS[cls.section]}"
    name = f"{field}='{cls.__name__}': test_probes.{cls.__name__}"
    with pytest.raises(InputError) as caught:
        check(cls)
    message = str(caught.value)  # Without the notes that JAX adds.
    assert re.search(rf"^{name}\.?{fault}", message), message
    assert "\n" not in message


@pytest.mark.parametrize("cls", [Branching, Total, Bare, BranchingLoss])
def test_nothing_is_written_then(cls: Any, tmp_path: Any) -> None:
    config = configs.from_config_dict(values_of(cls))
    with pytest.raises(InputError, match=cls.__name__):
        experiment.train(config, tmp_path / "run", planted(), show_progress=False)
    assert not (tmp_path / "run").exists()


# --- what is right -------------------------------------------------------------------------------


class WithLayer(Relation):
    strength: float = 0.5

    @nn.compact
    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return self.strength * nn.Dense(self.dim)(user * item)


class OfUsers(Relation):
    """The same for all items: its axes stretch."""

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return 0.5 * user


class OwnHLR(HLR):
    pass


class OwnTransCF(TransCF):
    pass


class OwnDistance(Geometry):
    strength: float = 0.5

    def distance(self, x: Any, y: Any) -> Any:
        return self.strength * jnp.sum(jnp.abs(x - y), axis=-1)


class Many(Sampler):
    """Draws without putting back more items than a small catalogue has."""

    is_shared: ClassVar[bool] = True
    number: int = 500

    def draw(self, examples: Any, source: Any) -> Any:
        every = jnp.arange(source.num_items)
        items = jax.random.choice(examples.step_key(3), every, (self.number,), replace=False)
        return self.share(items, examples.users, source)

    def num_negatives_of(self, num_items: int) -> int:
        return self.number


class Closest(Hinge):
    """Of many negatives takes some."""

    def __call__(self, positive: Any, negatives: Any) -> Any:
        far = jnp.where(negatives.mask, -negatives.values, -jnp.inf)
        closest = -jax.lax.top_k(far, 20)[0]
        gaps = jnp.where(closest < jnp.inf, positive[..., None] - closest, 0)
        return jnp.sum(jax.nn.relu(gaps + self.margin), axis=-1)


@pytest.mark.parametrize("cls", [WithLayer, OfUsers, OwnHLR, OwnTransCF, OwnDistance, Many])
def test_a_component_that_is_right_passes(cls: Any) -> None:
    check(cls)


def test_a_loss_is_tried_on_as_many_negatives_as_are_drawn() -> None:
    check(Closest, sampling={"num_negatives": 20})
    with pytest.raises(InputError, match=r"Closest.__call__ raised ValueError: .*test_probes.py:"):
        check(Closest, sampling={"num_negatives": 19})


def test_other_numbers_need_no_other_program() -> None:
    """As in a sweep over an option."""
    traces = []

    class Counted(OwnDistance):
        def distance(self, x: Any, y: Any) -> Any:
            traces.append(self)
            return super().distance(x, y)

    for strength in (0.5, 0.6, 0.7):
        values = values_of(Counted)
        values["geometry"]["strength"] = strength
        compatibility.check_config(configs.from_config_dict(values))
    assert len(traces) == 2  # distance, and pairwise by it
