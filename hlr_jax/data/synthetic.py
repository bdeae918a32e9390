"""Made-up interactions: the embedded data set, and skewed pairs of any size for benchmarks.

The embedded data set is a shop of songs with a planted structure that rewards what this library
is about. Songs belong to a genre and have a place on that genre's circle ("scene"). A listener
has two to four tastes, each a genre and a place, so no single point of a metric space is close
to all of them. Almost half of what is heard follows from an earlier song through one of a few
directed relations, such as "Jazz leads to Metal, a quarter of the circle on", and every listener
has a favourite relation. Popularity and activity have the long tails of real data.

Only uniform doubles are drawn and weights are rounded, so that a seed gives the same rows on
every machine: NumPy promises that stream, not those of its other distributions.
"""

import dataclasses

import numpy as np
import polars as pl

from hlr_jax.errors import InputError

DEFAULT_SEED = 2021
DEFAULT_USERS = 1200
DEFAULT_ITEMS = 800

GENRES = (
    "Ambient",
    "Blues",
    "Country",
    "Disco",
    "Folk",
    "House",
    "Indie",
    "Jazz",
    "Metal",
    "Punk",
    "Soul",
    "Techno",
)
RELATIONS = 3
MIN_ACTIVITY = 15
# How a song is chosen: by taste, by a relation to an earlier song, or else for being popular.
TASTE_SHARE = 0.45
RELATION_SHARE = 0.45
# Songs looked at for each choice: the one nearest to the wanted place is taken.
CANDIDATES = 24
FIRST_SECOND = 1_600_000_000
DAY = 86_400


@dataclasses.dataclass(frozen=True)
class _Catalogue:
    """Items and how they relate.

    Attributes:
      genre: `[I]` each item's genre.
      place: `[I]` where in the circle `[0, 1)` of its genre it is.
      order: `[I]` the items, by genre.
      weights: `[I + 1]` cumulative popularity along `order`, from 0.
      starts: `[G + 1]` where each genre begins in `order`.
      leads_to: `[G, R]` the genre that relation `r` leads to.
      turn: `[G, R]` how far along the circle relation `r` leads.
    """

    genre: np.ndarray
    place: np.ndarray
    order: np.ndarray
    weights: np.ndarray
    starts: np.ndarray
    leads_to: np.ndarray
    turn: np.ndarray


def generate(
    num_users: int = DEFAULT_USERS, num_items: int = DEFAULT_ITEMS, seed: int = DEFAULT_SEED
) -> pl.DataFrame:
    """The embedded data set, oldest row first within a user.

    Args:
      num_users: listeners, ids `0 .. num_users - 1`.
      num_items: songs, ids `0 .. num_items - 1`; a song nobody heard has no row.
      seed: what fixes every row.

    Returns:
      A frame of distinct pairs with int64 columns `user`, `item` and `timestamp` (seconds).

    Raises:
      InputError: there are too few users or items for the structure.
    """
    if num_users < 1:
        raise InputError(f"num_users={num_users}: generate at least 1 user")
    catalogue = _catalogue(num_items, seed)
    rng = np.random.default_rng([seed, 1])
    activity = _activity(num_users, num_items, rng)
    taste_genre, taste_place, taste_share = _tastes(num_users, rng)
    favourite = _integers(rng, RELATIONS, (num_users,))

    # heard[u, :length[u]] is the user's list so far; every step adds at most one song for each.
    heard = np.zeros((num_users, int(activity.max())), np.int64)
    length = np.zeros(num_users, np.int64)
    seen = np.zeros((num_users, num_items), bool)
    # A song already heard is not heard again, so some steps add nothing: allow for three times
    # as many steps as there are songs to hear.
    for _ in range(3 * heard.shape[1]):
        users = np.flatnonzero(length < activity)
        if users.size == 0:
            break
        taste = (rng.random((users.size, 1)) > taste_share[users]).sum(1)  # [A]
        genre = taste_genre[users, taste]
        place = taste_place[users, taste]
        way = rng.random(users.size)
        related = (way >= TASTE_SHARE) & (way < TASTE_SHARE + RELATION_SHARE) & (length[users] > 0)
        earlier = heard[users, (rng.random(users.size) ** 2 * length[users]).astype(np.int64)]
        kind = np.where(
            rng.random(users.size) < 0.8,
            favourite[users],
            _integers(rng, RELATIONS, (users.size,)),
        )
        origin = catalogue.genre[earlier]
        genre = np.where(related, catalogue.leads_to[origin, kind], genre)
        place = np.where(related, catalogue.place[earlier] + catalogue.turn[origin, kind], place)
        place = place + 0.02 * _normal(rng, (users.size,))
        anywhere = way >= TASTE_SHARE + RELATION_SHARE
        items = _choose(catalogue, genre, place, anywhere, rng)

        new = ~seen[users, items]
        users, items = users[new], items[new]
        heard[users, length[users]] = items
        seen[users, items] = True
        length[users] += 1

    filled = np.arange(heard.shape[1]) < length[:, None]  # [U, L]
    # Two years of first days, then a song every few hours to days.
    begin = FIRST_SECOND + (rng.random(num_users) * 730 * DAY).astype(np.int64)
    gaps = 600 + (rng.random(heard.shape) ** 3 * 6 * DAY).astype(np.int64)
    times = begin[:, None] + np.cumsum(gaps, axis=1)
    return pl.DataFrame(
        {
            "user": np.repeat(np.arange(num_users, dtype=np.int64), length),
            "item": heard[filled],
            "timestamp": times[filled],
        }
    )


def titles(num_items: int = DEFAULT_ITEMS, seed: int = DEFAULT_SEED) -> np.ndarray:
    """`[num_items]` a readable title for each item of `generate` with the same arguments.

    "Jazz 017" is the 17th song along the circle of Jazz, so neighbours have close numbers.

    Raises:
      InputError: there are too few items for the structure.
    """
    catalogue = _catalogue(num_items, seed)
    names = np.empty(num_items, "U16")
    for genre, name in enumerate(GENRES):
        members = catalogue.order[catalogue.starts[genre] : catalogue.starts[genre + 1]]
        along = members[np.argsort(catalogue.place[members], kind="stable")]
        names[along] = [f"{name} {number:03d}" for number in range(1, along.size + 1)]
    return names


def large(
    num_rows: int, num_users: int, num_items: int, seed: int = DEFAULT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs without structure but with long tails, for benchmarks.

    Small ids are the active users and the popular items.

    Args:
      num_rows: how many pairs.
      num_users: users are below this; a user may have no pair.
      num_items: items are below this; an item may have no pair.
      seed: what fixes the pairs.

    Returns:
      `users [num_rows]` int32, increasing, and `items [num_rows]` int32.

    Raises:
      InputError: `num_rows` is negative or more than a quarter of all possible pairs.
    """
    if not 0 <= num_rows <= num_users * num_items // 4:
        raise InputError(
            f"num_rows={num_rows}: draw between 0 and a quarter of the "
            f"{num_users} x {num_items} possible pairs"
        )
    rng = np.random.default_rng([seed, 2])
    pairs = np.zeros(0, np.int64)
    while pairs.size < num_rows:
        missing = num_rows - pairs.size
        draws = missing + missing // 2 + 64
        # u ** p puts weight x ** (1 / p - 1) on position x: tails of exponent 1/2 and 3/5.
        users = (rng.random(draws) ** 2 * num_users).astype(np.int64)
        items = (rng.random(draws) ** 2.5 * num_items).astype(np.int64)
        pairs = np.sort(np.concatenate([pairs, users * num_items + items]))
        # Sorting and comparing neighbours is many times faster than np.unique on this many.
        pairs = pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])]
    kept = np.sort(pairs[np.argsort(rng.random(pairs.size), kind="stable")[:num_rows]])
    return (kept // num_items).astype(np.int32), (kept % num_items).astype(np.int32)


def _catalogue(num_items: int, seed: int) -> _Catalogue:
    groups = len(GENRES)
    if num_items < 10 * groups:
        raise InputError(f"num_items={num_items}: generate at least {10 * groups} items")
    rng = np.random.default_rng([seed, 0])
    # Genres of unequal size, none empty: the first items go round, the others fall by weight.
    genre = np.arange(num_items) % groups
    rest = num_items // 2
    genre[-rest:] = (rng.random(rest) ** 1.5 * groups).astype(np.int64)
    genre = genre[_shuffled(rng, num_items)]
    place = rng.random(num_items)
    rank = 1 + _shuffled(rng, num_items)
    weight = np.rint(1e6 * (rank + 3.0) ** -1.0).astype(np.int64)
    order = np.argsort(genre, kind="stable")
    # A relation leads to another genre by a fixed step, different for each relation, so that
    # following it is never the same as following it backwards.
    steps = np.array([1, 4, 9])[:RELATIONS]
    leads_to = (np.arange(groups)[:, None] + steps) % groups
    turn = 0.15 + 0.2 * np.arange(RELATIONS) + 0.1 * rng.random((groups, RELATIONS))
    return _Catalogue(
        genre=genre,
        place=place,
        order=order,
        weights=np.concatenate([[0], np.cumsum(weight[order])]),
        starts=np.searchsorted(genre[order], np.arange(groups + 1)),
        leads_to=leads_to,
        turn=turn,
    )


def _activity(num_users: int, num_items: int, rng: np.random.Generator) -> np.ndarray:
    """`[U]` songs each user hears: log-normal, at least `MIN_ACTIVITY`."""
    songs = MIN_ACTIVITY + np.rint(np.exp(3.5 + 0.8 * _normal(rng, (num_users,)))).astype(np.int64)
    return np.minimum(songs, num_items // 4)


def _tastes(num_users: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Genres `[U, 4]`, places `[U, 4]` and cumulative shares `[U, 3]` of each user's tastes."""
    most = 4
    genres = np.argsort(rng.random((num_users, len(GENRES))), axis=1, kind="stable")[:, :most]
    places = rng.random((num_users, most))
    share = 0.4 + rng.random((num_users, most))
    count = 2 + _integers(rng, most - 1, (num_users, 1))
    share = np.where(np.arange(most) < count, share, 0.0)
    # Rounding error must not make a taste without a share reachable: cut the last sum off.
    cumulative = np.cumsum(share, axis=1) / share.sum(axis=1, keepdims=True)
    return genres, places, np.where(np.arange(most) < count - 1, cumulative, 2.0)[:, :-1]


def _choose(
    catalogue: _Catalogue,
    genre: np.ndarray,
    place: np.ndarray,
    anywhere: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """`[A]` items: of a few drawn by popularity the nearest to `place [A]` in `genre [A]`.

    Where `anywhere [A]` holds the first one drawn from the whole catalogue is taken.
    """
    low = catalogue.weights[np.where(anywhere, 0, catalogue.starts[genre])]
    high = catalogue.weights[np.where(anywhere, -1, catalogue.starts[genre + 1])]
    drawn = low[:, None] + rng.random((genre.size, CANDIDATES)) * (high - low)[:, None]
    at = np.searchsorted(catalogue.weights, drawn, side="right") - 1  # [A, C]
    items = catalogue.order[np.minimum(at, catalogue.order.size - 1)]
    apart = (catalogue.place[items] - place[:, None]) % 1.0
    nearest = np.argmin(np.minimum(apart, 1.0 - apart), axis=1)
    return items[np.arange(genre.size), np.where(anywhere, 0, nearest)]


def _integers(rng: np.random.Generator, bound: int, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.random(shape) * bound).astype(np.int64)


def _shuffled(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.argsort(rng.random(size), kind="stable")


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly normal with mean 0 and deviation 1: twelve uniforms, whose sum has variance 1."""
    return rng.random((*shape, 12)).sum(axis=-1) - 6.0
