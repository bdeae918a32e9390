"""Rank the whole catalogue for users, batch by batch, on the devices that hold the tables."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hlr_jax.data.interactions import Interactions
from hlr_jax.evaluation import ranking, user_batches
from hlr_jax.evaluation.batch_memory import check_batch
from hlr_jax.evaluation.device_groups import DeviceGroups
from hlr_jax.evaluation.hidden_items import HiddenItems, pairs_length
from hlr_jax.evaluation.nearest import nearest
from hlr_jax.evaluation.ranking import Tables, Users
from hlr_jax.evaluation.requests import filled_up
from hlr_jax.kernels.sizes import FEW_USERS, batches_ahead
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import devices, processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.progress import shown
from hlr_jax.sampling.histories import HistoryDraw
from hlr_jax.sampling.sources import DeviceInteractions
from hlr_jax.training.neighbours import neighbours_for
from hlr_jax.types import Params

# Users whose histories are held at once to locate them.
_POSITIONED = 256


@dataclasses.dataclass(frozen=True)
class Ranker:
    """Ranks the whole catalogue for users.

    Attributes:
      model: the relation.
      params: of the model, placed.
      placement: which devices hold which parameters.
      draw: how histories are drawn.
      batch_size: users that are ranked together.
    """

    model: Relation
    params: Params
    placement: Placement
    draw: HistoryDraw
    batch_size: int = 8192

    def top_k(
        self,
        users: Int[np.ndarray, "u"],
        k: int,
        history: Interactions,
        seen: Interactions,
        show_progress: bool = False,
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        """Find the k best items of the whole catalogue that each user has not seen.

        Equal scores come in the order of item ids. Neither the scores of the whole catalogue nor
        the relations are ever held together.

        Args:
          users: rows of `history` and `seen`.
          history: what the relation reads of a user. It must be among `seen`, because a target may
            not be in its own history. If users are sharded, both hold the users of this process's
            devices, numbered from 0.
          seen: what is left out.

        Returns:
          Item ids and scores, best first; -1 and -inf where fewer than k items remain.
        """
        placed = self.placed(history, len(users))
        everything = np.ones(seen.num_items, bool)
        return placed.top_k(users, k, seen, everything, show_progress)

    def placed(self, history: Interactions, users: int) -> "PlacedRanker":
        """Choose the devices that rank for so many users, and place what they rank with."""
        if self.placement.layout.user:
            groups = DeviceGroups.of(self.placement)
            params = ranking.points(self.model, groups.params(self.params))
        else:
            # Tables are replicated, and few users are ranked by a single device.
            params = self.replicated_points(history)
            count = devices.count() if min(self.batch_size, users) >= FEW_USERS else 1
            placement = Placement.replicated(count, len(params["user"]), len(params["item"]))
            groups, params = DeviceGroups.of(placement), placement.params(params)
        tables = Tables(
            groups.everywhere(self.model),
            params,
            groups.interactions(history),
            groups.everywhere(self.draw),
        )
        return PlacedRanker(groups, tables, self.batch_size)

    def replicated_points(self, history: Interactions) -> Params:
        """Compute the points of replicated tables on one device.

        Args:
          history: says who is whose neighbour, for a model that reads neighbours.
        """
        return ranking.points(self.model, self.replicated_rows(history))

    def replicated_rows(self, history: Interactions) -> Params:
        """Take one copy of replicated tables, with means of neighbours for a model that reads them.

        Args:
          history: says who is whose neighbour.
        """
        params = self.placement.one_copy(self.params)
        interactions = DeviceInteractions.of(history)
        neighbours = neighbours_for(self.model, interactions, self.placement.num_items)
        return neighbours.widened(self.model, params)

    def pair_scores(
        self,
        users: Int[np.ndarray, "u"],
        items: Int[np.ndarray, "u c"],
        history: Interactions,
    ) -> Float[np.ndarray, "u c"]:
        """Score candidates of each user: minus the distances to them, for replicated tables.

        A candidate that is in the user's history is left out of that history.
        """
        return self.placed(history, 1).pair_scores(users, items)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Ranks by what users are known to have, in the form that `evaluate_split` asks for."""

    ranker: Ranker
    show_progress: bool

    def top_items(
        self, users: Int[np.ndarray, "u"], k: int, known: Interactions
    ) -> Int[np.ndarray, "u k"]:
        return self.ranker.top_k(users, k, known, known, self.show_progress)[0]

    def pair_scores(
        self,
        users: Int[np.ndarray, "u"],
        candidates: Int[np.ndarray, "u n"],
        known: Interactions,
    ) -> Float[np.ndarray, "u n"]:
        return self.ranker.pair_scores(users, candidates, known)


@dataclasses.dataclass(frozen=True)
class PlacedRanker:
    """Ranks with tables that are where they are needed, request after request.

    Attributes:
      groups: of devices, each of which ranks for its own users.
      tables: what they rank with.
      batch_size: users that are ranked together.
    """

    groups: DeviceGroups
    tables: Tables
    batch_size: int

    def top_k(
        self,
        users: Int[np.ndarray, "u"],
        k: int,
        seen: Interactions,
        allowed: Bool[np.ndarray, "i"],
        show_progress: bool = False,
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        """Find the k best allowed items that each user has not seen; see `Ranker.top_k`."""
        ids = np.full((len(users), k), -1, np.int32)
        scores = np.full((len(users), k), -np.inf, "f4")
        found = self._results(users, k, seen, allowed)
        is_shown = show_progress and processes.is_first()
        with shown(len(users), "users", "ranking", show_progress=is_shown) as bar:
            # What is read is finished; meanwhile devices have work.
            for places, best in user_batches.late(found, batches_ahead()):
                shape = (len(places), -1, k)
                best_ids, best_scores = (np.asarray(x).reshape(shape) for x in best)
                for group, of_ids, of_scores in zip(places, best_ids, best_scores, strict=True):
                    ids[group] = of_ids[: len(group)]
                    scores[group] = of_scores[: len(group)]
                bar.advance(sum(map(len, places)))
        return ids, scores

    def _results(
        self,
        users: Int[np.ndarray, "u"],
        k: int,
        seen: Interactions,
        allowed: Bool[np.ndarray, "i"],
    ) -> Iterator[tuple[user_batches.Places, Any]]:
        """Begin batch after batch; yield the places of its users, and results on the devices."""
        groups = self.groups
        most = max(1, min(self.batch_size, len(users)))
        batches, size = user_batches.divide(groups.divide(users), most)
        free = devices.free_bytes(groups.mesh.devices.flat[0].memory_stats())
        model, draw = self.tables.model, self.tables.draw
        check_batch(model, (size, groups.count), groups.item_shards[1], draw.length, free)
        of_groups = [[users[group] for group in places] for places in batches]
        length = pairs_length(seen, of_groups)
        for places, of_batch in zip(batches, of_groups, strict=True):
            # Always the same shapes, so that one compilation serves all batches.
            padded = np.stack([user_batches.padded(group, size) for group in of_batch])
            hidden = HiddenItems.of(seen, of_batch, size, length, allowed)
            yield places, self._top_k_of_batch(padded, hidden, k)

    def _top_k_of_batch(
        self, users: Int[np.ndarray, "g n"], hidden: HiddenItems, k: int
    ) -> tuple[Int[Array, "gn k"], Float[Array, "gn k"]]:
        """Find the k best items of a batch of users, of which each group of devices has `n`."""
        groups = self.groups
        batch = Users(groups.rows(users), hidden)
        batch = groups.spread(batch, batch.specs(groups.layout))
        # Scores are differences of large terms; TF32 products would reorder near ties.
        with jax.default_matmul_precision("highest"):
            ids, scores = ranking.top_k(batch, self.tables, k, groups.layout, groups.mesh)
        return ids, scores

    def pair_scores(
        self, users: Int[np.ndarray, "u"], items: Int[np.ndarray, "u c"]
    ) -> Float[np.ndarray, "u c"]:
        """Score candidates of each user, on one device; see `Ranker.pair_scores`."""
        scores = np.empty(items.shape, np.float32)
        for start in range(0, len(users), self.batch_size):
            part = slice(start, start + self.batch_size)
            of_part = jnp.asarray(users[part], jnp.int32), jnp.asarray(items[part], jnp.int32)
            scores[part] = ranking.pair_scores(*of_part, self.tables)
        return scores

    def positions(self, users: Int[np.ndarray, "u"]) -> Float[np.ndarray, "u d"]:
        """Locate users, on one device; see `ranking.positions`."""
        model, size = self.tables.model, _POSITIONED
        found = np.zeros((len(users), model.dim), np.float32)
        for start in range(0, len(users), size):
            part = users[start : start + size]
            rows = filled_up(part.astype(np.int32), size)
            found[start : start + size] = ranking.positions(rows, self.tables)[: len(part)]
        return found

    def with_history(self, history: Interactions) -> "PlacedRanker":
        """Let users have other histories, for a model that reads no neighbours.

        Of all sizes of histories few programs are compiled.
        """
        placed = self.groups.everywhere(DeviceInteractions.rounded(history))
        return dataclasses.replace(self, tables=self.tables._replace(history=placed))

    def nearest_items(
        self, rows: Int[np.ndarray, "r"], k: int, allowed: Bool[np.ndarray, "i"]
    ) -> tuple[Int[np.ndarray, "r k"], Float[np.ndarray, "r k"]]:
        """Find the allowed items nearest to each of some, on one device."""
        model = self.tables.model
        items = model.first(self.tables.params["item"])
        return nearest(model.geometry, items, rows, k, allowed)
