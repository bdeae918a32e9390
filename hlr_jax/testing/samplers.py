"""The contract of a sampler of negatives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hlr_jax.data.interactions import Interactions
from hlr_jax.sampling.histories import UniformChoice
from hlr_jax.sampling.samplers import Examples, Sampler
from hlr_jax.sampling.sources import DeviceInteractions, SamplingSource, TripletSource
from hlr_jax.testing.expect import Expect, instance
from hlr_jax.types import PerExampleNegatives, SharedNegatives

_USERS, _ITEMS = 7, 23
_PARTS, _DRAWS = 3, 400


def check_sampler(sampler: Sampler | type[Sampler], is_uniform: bool = False) -> None:
    """Raise AssertionError where a sampler breaks its contract.

    - It gives items, `[B, K]` or shared ones `[N]`, as `is_shared` says, and a mask; what counts
      for a positive is of the catalogue, and nothing that its user has seen.
    - A shared item counts once, however often it was drawn.
    - The same key and step give the same draws, however a batch is spread over devices, and
      whatever stands in padding.
    - Some negative counts for some positive.

    Args:
      sampler: with its options; a class stands for the default ones.
      is_uniform: whether each unseen item should be drawn equally often, which is then checked.
    """
    made: Sampler = instance(sampler)
    expect = Expect(made)
    with expect.traceable():
        _check(expect, made, is_uniform)


def _check(expect: Expect, made: Sampler, is_uniform: bool) -> None:
    source, seen = _source(made)
    whole = _drawn(made, source)
    _check_form(expect, made, whole, len(source.users))
    counted = _counted(whole)
    for row, user in enumerate(np.asarray(source.users)):
        wrong = sorted({item for item in counted[row] if seen[user, item]})
        expect.that(not wrong, f"user {user} has seen items {wrong}, which count as its negatives")
    repeats = made.is_shared and any(len(set(items)) < len(items) for items in counted)
    expect.that(not repeats, "a shared item counts twice for a positive")
    expect.that(any(counted), "no negative counts for any positive")
    _check_split(expect, made, source, counted)
    if is_uniform:
        _check_uniform(expect, made, source, seen)


def _source(sampler: Sampler) -> tuple[TripletSource, np.ndarray]:
    """Interactions to draw from, and which items each user has seen: few, many, all but one."""
    rng = np.random.default_rng(0)
    chance = np.linspace(0.1, 0.8, _USERS)[:, None]
    seen = rng.random((_USERS, _ITEMS)) < chance
    seen[:, 0] = True
    seen[-1, :-1], seen[-1, -1] = True, False
    seen[:-1, 3] = False  # an item that hardly anybody has
    users, items = np.nonzero(seen)
    train = Interactions.from_pairs(users, items, num_users=_USERS, num_items=_ITEMS)
    history = DeviceInteractions.of(train)
    prepared = sampler.prepare(np.asarray(seen.sum(axis=0)), train)
    base = SamplingSource(history, history, UniformChoice(), prepared, _ITEMS)
    return TripletSource.of_training(base, train), seen


@jax.jit
def _drawn(sampler: Sampler, source: TripletSource) -> Any:
    """The negatives of all interactions, by one device."""
    rows = jnp.arange(len(source.users))
    return sampler.draw(_examples(source, rows, rows >= 0), source)


def _examples(source: TripletSource, rows: Array, valid: Array) -> Examples:
    """These interactions, in step 3."""
    users, items = source.users[rows], source.items[rows]
    numbers = source.first + rows.astype(jnp.uint32)
    return Examples(jax.random.key(1), 3, users, items, valid, numbers)


def _check_form(expect: Expect, sampler: Sampler, drawn: Any, count: int) -> None:
    wanted = SharedNegatives if sampler.is_shared else PerExampleNegatives
    expect.that(
        type(drawn) is wanted,
        f"draw returned {type(drawn).__name__}; with is_shared={sampler.is_shared} it should be "
        f"{wanted.__name__}",
    )
    items, mask = np.asarray(drawn.items), np.asarray(drawn.mask)
    expect.that(items.ndim == (1 if sampler.is_shared else 2), f"items of shape {items.shape}")
    expect.that(items.dtype == np.int32, f"items have type {items.dtype}, not int32")
    expect.that(mask.dtype == bool, f"the mask has type {mask.dtype}, not bool")
    shape = (count, items.shape[-1])
    expect.that(mask.shape == shape, f"the mask has shape {mask.shape}, not {shape}")
    expect.that(sampler.is_shared or items.shape == shape, f"items of shape {items.shape}")
    counts = mask.any(axis=0) if sampler.is_shared else mask
    inside = bool((~counts | ((items >= 0) & (items < _ITEMS))).all())
    expect.that(inside, "an item that counts is outside of the catalogue")


def _counted(drawn: Any) -> list[list[int]]:
    """The items that count for each positive, sorted."""
    mask = np.asarray(drawn.mask)
    items = np.broadcast_to(np.asarray(drawn.items), mask.shape)
    return [sorted(of_row[counts].tolist()) for of_row, counts in zip(items, mask, strict=True)]


def _check_split(
    expect: Expect, sampler: Sampler, source: TripletSource, counted: list[list[int]]
) -> None:
    """Draw by several devices, each with a part of the batch, of which the last ends in padding."""
    count = len(counted)
    size = -(-(count + 1) // _PARTS)
    rows = jnp.arange(_PARTS * size)
    valid = rows < count
    rows = jnp.where(valid, rows, 0)  # padding has the first row

    def of_device(rows: Array, valid: Array) -> Any:
        examples = _examples(source, rows, valid)._replace(axes=("devices",))
        return sampler.draw(examples, source)

    parts = jax.jit(jax.vmap(of_device, axis_name="devices"))(
        rows.reshape(_PARTS, size), valid.reshape(_PARTS, size)
    )
    found = []
    for part in range(_PARTS):
        found += _counted(jax.tree.map(lambda x, part=part: x[part], parts))
    differ = [row for row in range(count) if found[row] != counted[row]]
    expect.that(
        not differ,
        f"spread over {_PARTS} devices, positive {differ[:1]} has other negatives; draw by "
        "examples.keys or examples.step_key, and read examples.of_all_devices",
    )


def _check_uniform(
    expect: Expect, sampler: Sampler, source: TripletSource, seen: np.ndarray
) -> None:
    """How often each item counts for a user, in many steps, by 6 standard deviations."""
    users = np.asarray(source.users)
    first = np.flatnonzero(np.diff(users, prepend=-1))
    # A key for each draw of a positive, whose number is another in each.
    rows, valid = jnp.asarray(first), jnp.ones(len(first), bool)

    def one(draw: Array) -> Any:
        examples = _examples(source, rows, valid)
        numbers = examples.numbers + (draw * len(users)).astype(jnp.uint32)
        return sampler.draw(examples._replace(step=draw, numbers=numbers), source)

    drawn = jax.jit(lambda draws: jax.lax.map(one, draws))(jnp.arange(_DRAWS))
    mask = np.asarray(drawn.mask)
    items = np.broadcast_to(
        np.asarray(drawn.items)[:, None] if sampler.is_shared else np.asarray(drawn.items),
        mask.shape,
    )
    for row, user in enumerate(users[first]):
        counts = np.bincount(items[:, row][mask[:, row]], minlength=_ITEMS)
        expect.that(counts.sum(), f"no negative counts for user {user}")
        unseen = ~seen[user]
        share = counts[unseen] / counts.sum()
        wanted = 1 / unseen.sum()
        most = 6 * np.sqrt(wanted * (1 - wanted) / counts.sum())
        worst = float(np.abs(share - wanted).max())
        expect.that(
            worst <= most + 1e-9,
            f"of {counts.sum()} negatives of user {user}, an item has a share of "
            f"{wanted:.3f} by the promise and is {worst:.3f} off",
        )
