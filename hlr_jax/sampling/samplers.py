"""Draw negatives: the contract of a sampler, and the library's own."""

import typing
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from hlr_jax.config import Config, build
from hlr_jax.data.interactions import Interactions
from hlr_jax.registry import Component, Registry, register
from hlr_jax.sampling.negatives import (
    ItemWeights,
    UniformItems,
    item_weights,
    sample_items,
    sample_negatives,
    unseen_of_shared,
)
from hlr_jax.sampling.sources import SamplingSource
from hlr_jax.types import PerExampleNegatives, SharedNegatives


class Examples(NamedTuple):
    """The positives of a step that negatives are drawn for, or this device's part of them.

    Attributes:
      key: of the epoch.
      step: of the epoch.
      users, positives: `[B]`.
      valid: `[B]`; False for padding.
      numbers: `[B]` uint32; of the interactions among all, wherever they are taken.
      axes: names of the axes of devices that a step's positives are spread over; () for one.
    """

    key: Key[Array, ""]
    step: Int[Array, ""] | int
    users: Int[Array, "b"]
    positives: Int[Array, "b"]
    valid: Bool[Array, "b"]
    numbers: Array
    axes: tuple[str, ...] = ()

    def keys(self, purpose: int) -> Key[Array, "b"]:
        """Make a key for each positive and purpose, the same on any devices."""
        return keys_of_rows(self.key, purpose, self.numbers)

    def step_key(self, purpose: int) -> Key[Array, ""]:
        """Make a key for the step and a purpose, the same on all devices."""
        return key_of_step(self.key, purpose, self.step)

    def of_all_devices(self, values: Array) -> Array:
        """Gather values `[B, ..]` of the positives of all devices, in the order of these."""
        return jax.lax.all_gather(values, self.axes, tiled=True) if self.axes else values


# Purposes of random keys. Histories have 1; others may take any number from 3 on.
NEGATIVES, HISTORIES, SHARED = 0, 1, 2


def keys_of_rows(key: Key[Array, ""], purpose: int, numbers: Array) -> Key[Array, "b"]:
    """Make a key for each row and purpose, by the numbers of these among all."""
    of_purpose = jax.random.fold_in(key, purpose)
    return jax.vmap(jax.random.fold_in, (None, 0))(of_purpose, numbers)


def key_of_step(key: Key[Array, ""], purpose: int, step: Int[Array, ""] | int) -> Key[Array, ""]:
    """Make a key for a step of an epoch and a purpose."""
    return jax.random.fold_in(jax.random.fold_in(key, purpose), step)


class Sampler(Component):
    """Base of all samplers. Annotated fields are the options that `config.sampling` takes.

    Attributes:
      is_shared: whether all positives of a batch get the same negatives.
      is_full_catalog: whether these are all items, each once.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "draw" in vars(cls) and "targets" not in vars(cls):
            # Those of a class that draws otherwise.
            cls.targets = Sampler.targets  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)

    section: ClassVar[str] = "sampling"
    is_shared: ClassVar[bool] = False
    is_full_catalog: ClassVar[bool] = False

    def prepare(self, popularity: Int[np.ndarray, "i"], seen: Interactions) -> Any:
        """Make the arrays (a pytree) that drawing needs: on the host, once; none by default.

        Args:
          popularity: training interactions of each item.
          seen: what is never drawn, of the users that a device has. An array with one entry for
            each of these interactions is cut and padded with them.
        """
        return ()

    def draw(
        self, examples: Examples, source: SamplingSource
    ) -> PerExampleNegatives | SharedNegatives:
        """Draw the negatives of these positives: on the device, in every step.

        Everything random is to come from `examples.keys` or `examples.step_key`, so that resuming
        and any number of devices draw the same.
        """
        raise NotImplementedError

    def targets(self, key: Key[Array, ""], source: SamplingSource) -> Int[Array, "n"]:
        """Choose the items that a step of users is measured against, their positives among them.

        Only for samplers that batches of users may name. Of equal items the first counts.

        Args:
          key: of the step, the same on all devices.
        """
        raise NotImplementedError

    def num_negatives_of(self, num_items: int) -> int:
        """Count the negatives that a positive is compared with."""
        return int(getattr(self, "num_negatives", 1))

    def share(
        self, items: Int[Array, "n"], users: Int[Array, "b"], source: SamplingSource
    ) -> SharedNegatives:
        """Let users share these items, without those that they have seen and repeated ones."""
        unseen = unseen_of_shared(items, source.seen, users, source.num_items)
        return SharedNegatives(items, unseen)


def build_sampler(config: Config) -> Sampler:
    """Build the sampler of negatives that a configuration names.

    Raises:
      InputError: unknown sampler or option, or a value out of range.
    """
    return typing.cast(Sampler, build.build_component(config, "sampling"))


SAMPLERS: Registry[Sampler] = Registry("sampler", "sampling.negatives")


class _Weighted(Sampler):
    """Draws a number of items, uniformly or by popularity.

    Attributes:
      num_negatives: `K`, how many are drawn.
      popularity_exponent: a negative is drawn with probability ~ (training popularity)^exponent;
        0 draws uniformly.
    """

    num_negatives: int = 1
    popularity_exponent: float = 0.0

    def check(self) -> None:
        self.require(self.num_negatives >= 1, "num_negatives", "draw at least 1")
        self.require(0 <= self.popularity_exponent <= 2, "popularity_exponent", "use 0 to 2")

    def prepare(
        self, popularity: Int[np.ndarray, "i"], seen: Interactions
    ) -> UniformItems | ItemWeights:
        if not self.popularity_exponent:
            return UniformItems()
        return item_weights(popularity, self.popularity_exponent, seen)


@register("per_example")
class PerExample(_Weighted):
    """Every positive draws negatives for itself, each from the items its user has not seen."""

    def draw(self, examples: Examples, source: SamplingSource) -> PerExampleNegatives:
        drawn = jax.vmap(lambda key, user: sample_negatives(key, source, user, self.num_negatives))(
            examples.keys(NEGATIVES), examples.users
        )
        return PerExampleNegatives(drawn, jnp.ones(drawn.shape, bool))


@register("shared")
class Shared(_Weighted):
    """The positives of a step share negatives, drawn from the whole catalogue.

    Repeated ones count once, and what a user has seen not at all.
    """

    is_shared: ClassVar[bool] = True

    def draw(self, examples: Examples, source: SamplingSource) -> SharedNegatives:
        items = self.targets(examples.step_key(SHARED), source)
        return self.share(items, examples.users, source)

    def targets(self, key: Key[Array, ""], source: SamplingSource) -> Int[Array, "n"]:
        return sample_items(key, source, self.num_negatives)


@register("full_catalog")
class FullCatalog(Sampler):
    """All items that its user has not seen are negatives of a positive."""

    is_shared: ClassVar[bool] = True
    is_full_catalog: ClassVar[bool] = True

    def draw(self, examples: Examples, source: SamplingSource) -> SharedNegatives:
        items = self.targets(examples.step_key(SHARED), source)
        return self.share(items, examples.users, source)

    def targets(self, key: Key[Array, ""], source: SamplingSource) -> Int[Array, "n"]:
        return jnp.arange(source.num_items, dtype=jnp.int32)

    def num_negatives_of(self, num_items: int) -> int:
        return num_items
