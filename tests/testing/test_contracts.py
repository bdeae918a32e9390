"""The library's own components keep the contracts that it tests those of others by."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from hlr_jax.errors import InputError
from hlr_jax.functional import References
from hlr_jax.functional.geometry import GEOMETRIES, Geometry
from hlr_jax.functional.geometry.ball import Ball
from hlr_jax.functional.geometry.lorentz import Lorentz
from hlr_jax.functional.geometry.sphere import Sphere
from hlr_jax.functional.losses import LOSSES
from hlr_jax.functional.losses.contrastive import Contrastive
from hlr_jax.functional.losses.hinge import Hinge, Warp
from hlr_jax.functional.losses.softmax import Softmax
from hlr_jax.models import RELATIONS, History, Relation
from hlr_jax.models.cml import CML
from hlr_jax.models.hlr import HLR
from hlr_jax.models.hlrpp import HLRPlusPlus
from hlr_jax.models.lrml import LRML
from hlr_jax.sampling.samplers import SAMPLERS, FullCatalog, PerExample, Shared
from hlr_jax.testing import (
    check_geometry,
    check_loss,
    check_relation,
    check_sampler,
    contracts_of,
)


class L1(Geometry):
    """`D = sum |x - y|`: by `distance` alone."""

    def distance(self, x: Float[Array, "*#b d"], y: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
        return jnp.sum(jnp.abs(x - y), axis=-1)


class L1Ball(Ball):
    """A ball whose distance is another, and whose product is inherited."""

    def distance(self, x: Float[Array, "*#b d"], y: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
        return jnp.sum(jnp.abs(x - y), axis=-1)


EVERYWHERE = (Ball(), Sphere(), Lorentz(), L1())


def test_all_components_of_the_library_are_found() -> None:
    names = {contract.name for contract in contracts_of("hlr_jax")}
    kinds = {
        "check_relation": RELATIONS,
        "check_geometry": GEOMETRIES,
        "check_loss": LOSSES,
        "check_sampler": SAMPLERS,
    }
    own = {
        f"{check}[{name}]"
        for check, registry in kinds.items()
        for name in registry.names()
        if registry.get(name).__module__.startswith("hlr_jax.")
    }
    assert names == own
    assert len(own) >= 9 + 3 + 7 + 3
    assert contracts_of("hlr_jax.functional.losses.hinge") == [
        contract
        for contract in contracts_of("hlr_jax")
        if issubclass(contract.cls, Hinge) and contract.cls.__module__.endswith("hinge")
    ]
    assert contracts_of("hlr_jax.func") == []


OTHERS = [x for x in contracts_of("hlr_jax") if x.check is not check_relation]


@pytest.mark.parametrize("contract", OTHERS, ids=lambda contract: contract.name)
def test_components_with_default_options(contract: Any) -> None:
    contract.run()


@pytest.mark.parametrize("name", RELATIONS.names())
def test_relations_in_every_geometry(name: str) -> None:
    """Also in one that nobody registered."""
    check_relation(RELATIONS.get(name), EVERYWHERE)


@pytest.mark.parametrize(
    "geometry", [Ball(2.5), Sphere(0.3), Lorentz(2.0, 2.5), Lorentz(1e-3), L1(), L1Ball()], ids=str
)
def test_geometries_with_other_options(geometry: Geometry) -> None:
    check_geometry(geometry)


@pytest.mark.parametrize(
    "loss", [Hinge(0.0), Warp(2.0), Contrastive(2.0, 3.0), Softmax(0.1)], ids=str
)
def test_losses_with_other_options(loss: Any) -> None:
    check_loss(loss)


@pytest.mark.parametrize(
    ("sampler", "is_uniform"),
    [
        (PerExample(3), True),
        (PerExample(2, 0.75), False),
        (Shared(8), True),
        (Shared(8, 0.5), False),
        (FullCatalog(), True),
    ],
    ids=str,
)
def test_samplers_with_other_options(sampler: Any, is_uniform: bool) -> None:
    check_sampler(sampler, is_uniform)


@pytest.mark.parametrize(
    "model",
    [
        HLR(dim=6, slots=3, include_user=False, beta=0.5),
        RELATIONS.get("adacml")(dim=4, beta=0.5),
    ],
    ids=lambda model: type(model).__name__,
)
def test_relations_with_other_options(model: Relation) -> None:
    """Smoothed attention grows with the exponential of its logits."""
    check_relation(model, (Ball(),), largest=10.0)


# --- what other classes inherit -------------------------------------------------------------------


class HalfHLR(HLR):
    """Half of HLR's relation."""

    def from_references(
        self,
        user: Float[Array, "*#b d"],
        item: Float[Array, "*#b d"],
        history: History,
        references: References,
    ) -> Float[Array, "*b d"]:
        return 0.5 * super().from_references(user, item, history, references)


class TwiceHLR(HLR):
    """HLR whose items refer to the user's row twice."""

    def rows_before(self, user: Float[Array, "*b d"]) -> History:
        own = super().rows_before(user)
        return own.joined(own)


class OwnRowHLRPlusPlus(HLRPlusPlus):
    """HLR++ whose items refer to the user's row before its history."""

    def rows_before(self, user: Float[Array, "*b d"]) -> History:
        return History(user[..., None, :], jnp.ones((*user.shape[:-1], 1), bool))


class LeaningCML(CML):
    """A relation that reads the item, of a class that says it does not."""

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        return 0.3 * user * item


class NegativeLRML(LRML):
    """The relation the other way round."""

    def __call__(
        self, user: Float[Array, "*#b d"], item: Float[Array, "*#b d"], history: History
    ) -> Float[Array, "*b d"]:
        return -super().__call__(user, item, history)


@pytest.mark.parametrize("cls", [HalfHLR, TwiceHLR, OwnRowHLRPlusPlus, LeaningCML, NegativeLRML])
def test_a_subclass_ranks_by_what_it_is_trained_on(cls: type[Relation]) -> None:
    """Fast paths of the class above compute that one's relation, and are not inherited."""
    check_relation(cls, (Ball(), L1()))


def test_a_subclass_that_changes_no_relation_keeps_the_fast_paths() -> None:
    class Same(LRML):
        temperature: float = 1.0

    assert Same.euclidean_scores is LRML.euclidean_scores
    assert Same.euclidean_pairwise is LRML.euclidean_pairwise
    assert NegativeLRML.euclidean_scores is Relation.euclidean_scores
    assert HalfHLR.euclidean_scores is Relation.euclidean_scores
    # The one that reads references goes by `from_references`, and stays.
    assert HalfHLR.general_scores is HLR.general_scores
    assert LeaningCML.reads_item
    assert not CML.reads_item


@pytest.mark.parametrize("method", ["distance", "distances", "translated"])
def test_a_relation_with_a_distance_of_its_own_is_refused(method: str) -> None:
    with pytest.raises(InputError, match=r"Own defines a distance of its own.*write a Geometry"):
        type("Own", (CML,), {method: lambda self, *arguments: arguments[0]})


def test_a_geometry_with_another_distance_does_not_go_by_an_inherited_product() -> None:
    assert L1Ball.pairwise is Geometry.pairwise
    assert not L1Ball().is_euclidean
    assert Ball().is_euclidean

    class Ellipsoid(Ball):
        def embed(self, rows: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
            axes = jnp.linspace(0.5, 1.5, rows.shape[-1], dtype=rows.dtype)
            return rows * jnp.broadcast_to(axes, rows.shape)

    assert not Ellipsoid().is_euclidean
    rows = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    expected = np.abs(rows[:, None] - rows).sum(-1)
    np.testing.assert_allclose(L1Ball().pairwise(jnp.asarray(rows), jnp.asarray(rows)), expected)
    check_relation(RELATIONS.get("transcf"), (L1Ball(), Ellipsoid()))
