"""What breaks a contract is named."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

from hlr_jax.errors import InputError
from hlr_jax.functional.geometry import Geometry
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.losses import Loss
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.models import Relation
from hlr_jax.models.adacml import AdaCML
from hlr_jax.models.cml import CML
from hlr_jax.models.lrml import LRML
from hlr_jax.sampling.negatives import sample_negatives
from hlr_jax.sampling.samplers import NEGATIVES, Examples, PerExample, Sampler, Shared
from hlr_jax.testing import check_geometry, check_loss, check_relation, check_sampler
from hlr_jax.types import History, PerExampleNegatives, SharedNegatives


class Crooked(Geometry):
    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.square(x) - jnp.square(y), axis=-1) ** 2 + x[..., 0] - y[..., 0]


class Negative(Geometry):
    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.square(x - y), axis=-1) - 0.5


class Root(Geometry):
    """Whose gradient is infinite between equal points."""

    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sqrt(jnp.sum(jnp.square(x - y), axis=-1))


class OtherProduct(Geometry):
    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.square(x - y), axis=-1)

    def pairwise(self, x: Any, y: Any) -> Any:
        return -2 * x @ y.T


class Shrinking(Ball):
    def project(self, rows: Any) -> Any:
        return 0.9 * rows


class Halving(Ball):
    """Whose gradient is not that of its values."""

    def distance(self, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.square(jax.lax.stop_gradient(x) - y), axis=-1)


class Branching(Geometry):
    power: float = 2.0

    def distance(self, x: Any, y: Any) -> Any:
        apart = jnp.abs(x - y)
        return jnp.sum(apart**2 if self.power == 2 else apart, axis=-1)


@pytest.mark.parametrize(
    ("geometry", "fault"),
    [
        (Crooked, "a distance between points is negative"),
        (Negative, "a distance between points is negative"),
        (Root, "the gradient of distance between equal points: .* are not finite"),
        (OtherProduct, "pairwise against distance, between points: "),
        (Shrinking, "project done twice: "),
        (Halving, "the gradient of distance along a random direction is .*, by finite differences"),
        (Branching, "options power are floats, so they are arrays within a program"),
    ],
)
def test_geometries(geometry: Any, fault: str) -> None:
    with pytest.raises(AssertionError, match=rf"test_breaches.{geometry.__name__}\(.*\): {fault}"):
        check_geometry(geometry)


class Unmasked(Loss):
    def __call__(self, positive: Any, negatives: Any) -> Any:
        gaps = positive[..., None] - negatives.values
        return jnp.sum(jax.nn.relu(gaps + 0.5), axis=-1)


class Total(Hinge):
    def __call__(self, positive: Any, negatives: Any) -> Any:
        return jnp.sum(super().__call__(positive, negatives))


class MeanOfNone(Hinge):
    """The mean over the negatives that count, of which there may be none."""

    def __call__(self, positive: Any, negatives: Any) -> Any:
        number = jnp.sum(negatives.mask, axis=-1, dtype=positive.dtype)
        return super().__call__(positive, negatives) / number


class ByExponentials(Loss):
    def __call__(self, positive: Any, negatives: Any) -> Any:
        others = jnp.where(negatives.mask, jnp.exp(-negatives.values), 0)
        return positive + jnp.log(jnp.exp(-positive) + jnp.sum(others, axis=-1))


class Unshared(Hinge):
    shares_negatives: ClassVar[bool] = True

    def __call__(self, positive: Any, negatives: Any) -> Any:
        values = jnp.broadcast_to(negatives.values, (*positive.shape, negatives.values.shape[-1]))
        mask = jnp.broadcast_to(negatives.mask, values.shape)
        gaps = jnp.where(mask, positive[..., :1, None] - values, 0)
        if positive.ndim == 1:
            gaps = jnp.where(mask, positive[..., None] - values, 0)
        return jnp.sum(jax.nn.relu(gaps), axis=-1)


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        (Unmasked, "the gradient of a masked negative is not 0"),
        (Total, r"the loss has shape \(\), not \(6,\)"),
        (MeanOfNone, "the loss, also where no negative counts: 1 of 6 numbers are not finite"),
        (ByExponentials, "loss and gradient of distances up to 20000: .* are not finite"),
        (Unshared, "with two leading axes instead of one: "),
    ],
)
def test_losses(loss: Any, fault: str) -> None:
    with pytest.raises(AssertionError, match=rf"test_breaches.{loss.__name__}\(.*\): {fault}"):
        check_loss(loss)


class RanksOtherwise(CML):
    """Whose fast path computes another relation."""

    reads_item: ClassVar[bool] = True

    def euclidean_scores(self, users: Any, tile: Any, catalogue: Any, histories: Any) -> Any:
        return users @ tile.T


class ReadsPadding(Relation):
    uses_history: ClassVar[bool] = True

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        mean = jnp.mean(history.rows, axis=-2)
        return jnp.broadcast_to(mean, jnp.broadcast_shapes(user.shape, item.shape))


class EmptyHistory(Relation):
    uses_history: ClassVar[bool] = True

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        total = jnp.sum(jnp.where(history.mask[..., None], history.rows, 0), axis=-2)
        number = jnp.sum(history.mask, axis=-1, keepdims=True, dtype=total.dtype)
        mean = total / number
        return jnp.broadcast_to(mean, jnp.broadcast_shapes(user.shape, item.shape))


class UnsaidHistory(Relation):
    """Which is all that a relation needs to read nothing in training."""

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        total = jnp.sum(jnp.where(history.mask[..., None], history.rows, 0), axis=-2)
        return jnp.broadcast_to(total, jnp.broadcast_shapes(user.shape, item.shape))


class KeepsTheTarget(AdaCML):
    """Which a target's own row changes, while rows of users are fitted."""

    def known_distances(self, users: Any, items: Any, known: Any) -> Any:
        return self.pairwise_distances(users, items, History(items[known.items], known.mask))


class OneItem(Relation):
    """Whose relation is that of the first item for all."""

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        first = item if item.ndim == 1 else item[..., :1, :]
        return jnp.broadcast_to(user * first, jnp.broadcast_shapes(user.shape, item.shape))


class OtherSlots(LRML):
    """Whose weights are those of equal attention."""

    def slot_weights(self, user: Any, item: Any, history: Any) -> Any:
        shape = jnp.broadcast_shapes(user.shape, item.shape)[:-1]
        return {"memory": jnp.full((*shape, self.slots), 1 / self.slots)}


class BranchingRelation(Relation):
    strength: float = 0.5

    def __call__(self, user: Any, item: Any, history: Any) -> Any:
        return user * item * (self.strength if self.strength else 1.0)


@pytest.mark.parametrize(
    ("relation", "fault"),
    [
        (RanksOtherwise, r"minus scores, against D\(user \+ r, item\) pair by pair: "),
        (ReadsPadding, "with other rows at masked places of histories, distances: "),
        (EmptyHistory, "the relation of .*: .* numbers are not finite"),
        (UnsaidHistory, r"it reads the history; write uses_history: ClassVar\[bool\] = True"),
        (KeepsTheTarget, r"known_distances, against D\(user \+ r, item\) pair by pair: "),
        (OneItem, r"distances, against D\(user \+ r, item\) pair by pair: "),
        (OtherSlots, "slot_weights times the slots of memories, against the relation: "),
        (BranchingRelation, "options strength are floats, so they are arrays within a program"),
    ],
)
def test_relations(relation: Any, fault: str) -> None:
    with pytest.raises(AssertionError, match=rf"test_breaches.{relation.__name__}\(.*\): {fault}"):
        check_relation(relation, (Ball(),))


class DrawsSeen(Shared):
    def share(self, items: Any, users: Any, source: Any) -> Any:
        return SharedNegatives(items, jnp.ones((len(users), len(items)), bool))


class Twice(Sampler):
    is_shared: ClassVar[bool] = True

    def draw(self, examples: Examples, source: Any) -> Any:
        items = jnp.arange(source.num_items, dtype=jnp.int32)
        shared = self.share(items, examples.users, source)
        return SharedNegatives(
            jnp.concatenate([items, items]), jnp.concatenate([shared.mask, shared.mask], axis=1)
        )


class InBatch(Sampler):
    """The positives of this device's part of the batch."""

    is_shared: ClassVar[bool] = True

    def draw(self, examples: Examples, source: Any) -> Any:
        return self.share(examples.positives, examples.users, source)


class InBatchOfAll(Sampler):
    """The positives of the whole batch, without padding: as it should be."""

    is_shared: ClassVar[bool] = True

    def draw(self, examples: Examples, source: Any) -> Any:
        positives = jnp.where(examples.valid, examples.positives, source.num_items)
        items = examples.of_all_devices(positives)
        shared = self.share(items, examples.users, source)
        return shared._replace(items=jnp.minimum(items, source.num_items - 1))


class PastTheEnd(InBatchOfAll):
    """The same; what stands for padding is past the end of the catalogue, and does not count."""

    def draw(self, examples: Examples, source: Any) -> Any:
        positives = jnp.where(examples.valid, examples.positives, source.num_items)
        return self.share(examples.of_all_devices(positives), examples.users, source)


class OneNegative(PerExample):
    """Which is past the end for all but the first user, and counts for `user 1`."""

    def draw(self, examples: Examples, source: Any) -> Any:
        drawn = super().draw(examples, source)
        inside = examples.users[:, None] == 0
        counts = examples.users[:, None] < 2
        return PerExampleNegatives(jnp.where(inside, drawn.items, source.num_items), counts)


class OnlyTheFirst(PerExample):
    """Draws for the first user alone."""

    def draw(self, examples: Examples, source: Any) -> Any:
        drawn = super().draw(examples, source)
        return drawn._replace(mask=jnp.broadcast_to(examples.users[:, None] == 0, drawn.mask.shape))


class BranchingSampler(Sampler):
    is_shared: ClassVar[bool] = True
    keep: float = 0.5

    def draw(self, examples: Examples, source: Any) -> Any:
        number = 5 if self.keep > 0.2 else 6
        items = jax.random.randint(examples.step_key(3), (number,), 0, source.num_items)
        return self.share(items, examples.users, source)


class SmallItems(PerExample):
    """Not uniform: the smaller of two."""

    def draw(self, examples: Examples, source: Any) -> Any:
        drawn = jax.vmap(lambda key, user: sample_negatives(key, source, user, 2))(
            examples.keys(NEGATIVES), examples.users
        )
        smaller = jnp.min(drawn, axis=1, keepdims=True)
        return PerExampleNegatives(smaller, jnp.ones(smaller.shape, bool))


@pytest.mark.parametrize(
    ("sampler", "fault"),
    [
        (DrawsSeen(30), r"user \d has seen items \[\d+(, \d+)*\], which count as its negatives"),
        (OneNegative(), "an item that counts is outside of the catalogue"),
        (OnlyTheFirst(), r"no negative counts for user 1$"),
        (BranchingSampler(), "options keep are floats, so they are arrays within a program"),
        (Twice(), "a shared item counts twice for a positive"),
        (InBatch(), r"spread over 3 devices, positive \[\d+\] has other negatives"),
        (SmallItems(), r"of \d+ negatives of user \d, an item has a share of"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_samplers(sampler: Any, fault: str) -> None:
    name = type(sampler).__name__
    with pytest.raises(AssertionError, match=rf"test_breaches.{name}\(.*\): {fault}"):
        check_sampler(sampler, is_uniform=isinstance(sampler, SmallItems | OnlyTheFirst))


def test_seen_items_are_named_once() -> None:
    with pytest.raises(AssertionError) as caught:
        check_sampler(DrawsSeen(30))
    named = str(caught.value).split("[")[1].split("]")[0].split(", ")
    assert len(named) == len(set(named))


@pytest.mark.parametrize("sampler", [InBatchOfAll, PastTheEnd])
def test_an_in_batch_sampler_that_is_right(sampler: Any) -> None:
    check_sampler(sampler)


class Deep(Loss):
    """Branches on an option where only other numbers of axes go."""

    power: float = 1.0

    def __call__(self, positive: Any, negatives: Any) -> Any:
        if positive.ndim == 2 and self.power > 2:
            return positive**2
        return positive


class ByValue(Loss):
    """Branches on a distance."""

    def __call__(self, positive: Any, negatives: Any) -> Any:
        return positive if positive[0] > 0 else 2 * positive


def test_branches_are_explained_wherever_they_are_met() -> None:
    with pytest.raises(AssertionError, match=r"Deep.*options power are floats, so.*use jnp.where"):
        check_loss(Deep)
    with pytest.raises(AssertionError, match=r"ByValue.*its arguments are arrays within a program"):
        check_loss(ByValue)


def test_options_of_an_instance_are_checked_too() -> None:
    for check, component in ((check_loss, Hinge(-1.0)), (check_geometry, Ball(0.0))):
        with pytest.raises(InputError, match=r"config\.(loss\.margin|geometry\.radius)="):
            check(component)
