"""Generate interactions: the embedded data set, and skewed pairs of any number for benchmarks.

The embedded data set simulates listeners of songs, with a structure that the models of this library
can learn. A song belongs to a genre, and has a place on a circle within that genre. A listener
has two to four tastes, each of which is a genre and a place, so that no single point of a metric
space is close to all of them. Almost half of the songs are chosen for their relation to an earlier
song. There are a few directed relations, such as "Jazz leads to Metal, a quarter of the circle
further", and every listener has a favourite one. The popularity of songs and the activity of
listeners have long tails, as in real data.

A seed gives the same rows on every machine. For that, all random numbers are made from uniform
doubles, because NumPy does not promise the same stream for other distributions, and weights are
rounded.
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
# Shares of songs chosen by taste and by a relation to an earlier song; the rest are chosen by
# popularity.
TASTE_SHARE = 0.45
RELATION_SHARE = 0.45
# Songs drawn for each choice; the one nearest to the wanted place is taken.
CANDIDATES = 24
FIRST_SECOND = 1_600_000_000
DAY = 86_400


@dataclasses.dataclass(frozen=True)
class _Catalogue:
    """The items and the relations between them.

    Attributes:
      genre: `[I]` genre of each item.
      place: `[I]` place of each item on the circle `[0, 1)` of its genre.
      order: `[I]` the items, sorted by genre.
      weights: `[I + 1]` cumulative popularity in that order, from 0.
      starts: `[G + 1]` position in `order` at which each genre begins.
      leads_to: `[G, R]` the genre that relation `r` leads to from genre `g`.
      turn: `[G, R]` how far along the circle relation `r` leads from genre `g`.
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
    """Generate the embedded data set, or one like it.

    Args:
      num_users: the number of listeners; their ids are `0 .. num_users - 1`.
      num_items: the number of songs; their ids are `0 .. num_items - 1`. Songs that nobody has
        heard have no row.
      seed: of all random numbers.

    Returns:
      A frame with int64 columns `user`, `item` and `timestamp` (in seconds). It is sorted by user
      and timestamp, and has each pair of user and item at most once.

    Raises:
      InputError: there are too few users or items.
    """
    if num_users < 1:
        raise InputError(f"num_users={num_users}: generate at least 1 user")
    catalogue = _catalogue(num_items, seed)
    rng = np.random.default_rng([seed, 1])
    activity = _activity(num_users, num_items, rng)
    taste_genre, taste_place, taste_share = _tastes(num_users, rng)
    favourite = _integers(rng, RELATIONS, (num_users,))

    # heard[u, :length[u]] are the songs of a user so far. A step adds at most one song per user.
    heard = np.zeros((num_users, int(activity.max())), np.int64)
    length = np.zeros(num_users, np.int64)
    seen = np.zeros((num_users, num_items), bool)
    # A step adds nothing for a user who has heard the song already. So there are three times as
    # many steps as songs wanted.
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
        from_genre = catalogue.genre[earlier]
        genre = np.where(related, catalogue.leads_to[from_genre, kind], genre)
        turned = catalogue.place[earlier] + catalogue.turn[from_genre, kind]
        place = np.where(related, turned, place)
        place = place + 0.02 * _normal(rng, (users.size,))
        anywhere = way >= TASTE_SHARE + RELATION_SHARE
        items = _choose(catalogue, genre, place, anywhere, rng)

        new = ~seen[users, items]
        users, items = users[new], items[new]
        heard[users, length[users]] = items
        seen[users, items] = True
        length[users] += 1

    filled = np.arange(heard.shape[1]) < length[:, None]  # [U, L]
    # Listeners start within two years, and then hear a song every few hours to days.
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
    """Return `[num_items]` titles of the songs that `generate` makes with the same arguments.

    "Jazz 017" is the 17th song on the circle of Jazz, so songs that are close have close numbers.

    Raises:
      InputError: there are too few items.
    """
    catalogue = _catalogue(num_items, seed)
    names = np.empty(num_items, "U16")
    for genre, name in enumerate(GENRES):
        members = catalogue.order[catalogue.starts[genre] : catalogue.starts[genre + 1]]
        along = members[np.argsort(catalogue.place[members], kind="stable")]
        names[along] = [f"{name} {number:03d}" for number in range(1, along.size + 1)]
    return names


def genres(num_items: int = DEFAULT_ITEMS, seed: int = DEFAULT_SEED) -> list[str]:
    """Return the genre of each item of the data set that `generate` makes of the same numbers."""
    return [GENRES[genre] for genre in _catalogue(num_items, seed).genre.tolist()]


def large(
    num_rows: int, num_users: int, num_items: int, seed: int = DEFAULT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Generate different pairs with long tails and no other structure, for benchmarks.

    The active users and the popular items have small ids.

    Args:
      num_rows: the number of pairs.
      num_users: bound of user ids; some users may have no pair.
      num_items: bound of item ids; some items may have no pair.
      seed: of all random numbers.

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
        # For uniform u, u ** p has density x ** (1 / p - 1), so tails have exponents 1/2 and 3/5.
        users = (rng.random(draws) ** 2 * num_users).astype(np.int64)
        items = (rng.random(draws) ** 2.5 * num_items).astype(np.int64)
        pairs = np.sort(np.concatenate([pairs, users * num_items + items]))
        # For so many pairs, np.unique would be many times slower than comparing neighbours.
        pairs = pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])]
    kept = np.sort(pairs[np.argsort(rng.random(pairs.size), kind="stable")[:num_rows]])
    return (kept // num_items).astype(np.int32), (kept % num_items).astype(np.int32)


def _catalogue(num_items: int, seed: int) -> _Catalogue:
    """Draw genres, places and popularities of items, and the relations between genres."""
    groups = len(GENRES)
    if num_items < 10 * groups:
        raise InputError(f"num_items={num_items}: generate at least {10 * groups} items")
    rng = np.random.default_rng([seed, 0])
    # Genres of different sizes, none empty: half of the items are spread evenly, half by weight.
    genre = np.arange(num_items) % groups
    rest = num_items // 2
    genre[-rest:] = (rng.random(rest) ** 1.5 * groups).astype(np.int64)
    genre = genre[_shuffled(rng, num_items)]
    place = rng.random(num_items)
    rank = 1 + _shuffled(rng, num_items)
    weight = np.rint(1e6 * (rank + 3.0) ** -1.0).astype(np.int64)
    order = np.argsort(genre, kind="stable")
    # Every relation goes a fixed number of genres further. The numbers differ in such a way that
    # no relation is the reverse of itself or another.
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
    """Draw `[U]` how many songs each user hears: log-normal, and at least `MIN_ACTIVITY`."""
    songs = MIN_ACTIVITY + np.rint(np.exp(3.5 + 0.8 * _normal(rng, (num_users,)))).astype(np.int64)
    return np.minimum(songs, num_items // 4)


def _tastes(num_users: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw genres `[U, 4]`, places `[U, 4]` and cumulative shares `[U, 3]` of users' tastes."""
    most = 4
    genres = np.argsort(rng.random((num_users, len(GENRES))), axis=1, kind="stable")[:, :most]
    places = rng.random((num_users, most))
    share = 0.4 + rng.random((num_users, most))
    count = 2 + _integers(rng, most - 1, (num_users, 1))
    share = np.where(np.arange(most) < count, share, 0.0)
    # The last sum is left out, so that a rounding error cannot choose a taste without a share.
    cumulative = np.cumsum(share, axis=1) / share.sum(axis=1, keepdims=True)
    return genres, places, np.where(np.arange(most) < count - 1, cumulative, 2.0)[:, :-1]


def _choose(
    catalogue: _Catalogue,
    genre: np.ndarray,
    place: np.ndarray,
    anywhere: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Choose `[A]` items, one for each active user.

    Args:
      catalogue: of the items.
      genre: `[A]` the wanted genre.
      place: `[A]` the wanted place in it. Of `CANDIDATES` items that are drawn by popularity, the
        nearest is chosen.
      anywhere: `[A]` whether to choose by popularity alone, from all genres.
      rng: source of randomness.
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
    """Draw integers from 0 to `bound - 1`."""
    return (rng.random(shape) * bound).astype(np.int64)


def _shuffled(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a permutation of `0 .. size - 1`."""
    return np.argsort(rng.random(size), kind="stable")


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw from nearly a standard normal distribution: a sum of 12 uniform numbers, minus 6."""
    return rng.random((*shape, 12)).sum(axis=-1) - 6.0
