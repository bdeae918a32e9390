"""A trained model: recommend with it, save it, load it, evaluate it."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from hlr_jax.config import Config, build
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation.evaluate import evaluate_split
from hlr_jax.evaluation.nearest import nearest
from hlr_jax.evaluation.ranker import PlacedRanker, Ranker
from hlr_jax.evaluation.requests import filled_up, power_of_two, ranked
from hlr_jax.kernels.sizes import FEW_USERS
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import saved
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.verbs import Ids, Verbs, listed
from hlr_jax.runs.workdir import check_same_data, finished_refit, load_config, stored_data
from hlr_jax.sampling.histories import HistoryDraw, history_choice
from hlr_jax.training.epoch import sum_of_loss
from hlr_jax.training.inputs import (
    Positives,
    make_objective,
    make_recipe,
    ordered_rows,
    validation_positives,
)
from hlr_jax.training.loop import Program
from hlr_jax.training.state import Keys, mean_of, param_shapes
from hlr_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Recommender(Verbs):
    """A trained model with the data set that it was trained on.

    Attributes:
      config: of the run.
      dataset: whose users and items the rows of the parameters stand for.
      model: the relation.
      params: of the model, placed.
      placement: which devices hold which parameters.
    """

    config: Config
    dataset: Dataset
    model: Relation
    params: Params
    placement: Placement

    @classmethod
    def of(cls, config: Config, dataset: Dataset, model: Relation, params: Params) -> "Recommender":
        """Place parameters, and join them with a model and its data set."""
        placement = Placement.of(config.sharding, model, dataset.num_users, dataset.num_items)
        return cls(config, dataset, model, placement.params(params), placement)

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path,
        dataset: Dataset | None = None,
        refitted: bool = True,
    ) -> "Recommender":
        """Load a model that `save` has written, or the best epoch of a run.

        Nothing else is needed: a run's folder holds its data too.

        Args:
          path: a saved file, or the folder that training wrote to.
          dataset: the data a run was trained on, to check that they are these.
          refitted: which model of a run with `config.training.refit` to load: the one that was
            trained on validation too, or the one that was selected on validation.

        Raises:
          InputError: there is no trained model, the file is damaged or of a newer version, or the
            model is of a module that is not imported.
        """
        workdir = pathlib.Path(path)
        if not workdir.is_dir():
            return cls(*saved.load(workdir))
        config = load_config(workdir)
        dataset = dataset or stored_data(workdir, config)
        if config.training.refit and refitted:
            return cls.load(finished_refit(workdir), dataset.joined())
        check_same_data(workdir, dataset)
        model = build.build_model(config)
        placement = Placement.for_ranking(
            config.sharding, model, dataset.num_users, dataset.num_items
        )
        store = Checkpoints(workdir / "checkpoints", placement.used_rows)
        params = store.restore_best(param_shapes(model, placement, dataset.num_features))
        return cls(config, dataset, model, params, placement)

    def with_evaluation(self, **changes: Any) -> "Recommender":
        """Change fields of `config.evaluation`."""
        evaluation = dataclasses.replace(self.config.evaluation, **changes)
        config = dataclasses.replace(self.config, evaluation=evaluation)
        return dataclasses.replace(self, config=config)

    def save(self, path: str | pathlib.Path) -> None:
        """Save the model as one file with all that ranking takes, the data included.

        It is a safetensors file, and is loaded by `load` on any machine, without the data.

        Raises:
          InputError: it cannot be written, or several processes have the tables.
        """
        saved.save(pathlib.Path(path), self.config, self.dataset, self.params)

    def user_vectors(self, users: Ids = None) -> Float[np.ndarray, "u d"]:
        """Return where users are, in the order given or of `dataset.user_ids`.

        Where a relation does not depend on the item, a user is where it leads; then minus the
        distances to `item_vectors`, in the model's geometry, are the scores. Elsewhere it is the
        user's vector before each item's relation translates it.

        Raises:
          InputError: an unknown user.
        """
        if users is None:
            return self._few.positions(np.arange(self.dataset.num_users, dtype=np.int32))
        return self._few.positions(self._rows(listed("users", users), self.everything, "error"))

    def item_vectors(self, items: Ids = None) -> Float[np.ndarray, "i d"]:
        """Return the points of items, in the order given or of `dataset.item_ids`.

        Raises:
          InputError: an unknown item, or one without a training interaction.
        """
        points = np.asarray(self.model.first(self._few.tables.params["item"]))
        return points if items is None else points[self._item_rows("items", listed("items", items))]

    def similar_users(self, users: Ids, k: int = 10) -> pl.DataFrame:
        """List the k users nearest to each of these, by `user_vectors`.

        Returns:
          Columns `user`, `rank`, `similar` and `score`, minus the distance between the two.

        Raises:
          InputError: an unknown user, or k below 1 or above the number of users.
        """
        ids, count = listed("users", users), self.dataset.num_users
        self._check_k(k, count, "the number of users")
        rows = self._rows(ids, self.everything, "error")
        points = jnp.asarray(self.user_vectors())
        allowed = np.asarray(self.everything.counts > 0)
        if not self.knows_untrained_users:
            allowed = np.asarray(self.dataset.train.counts > 0)
        found = nearest(self.model.geometry, points, rows, k, allowed)
        return self._lists("user", ids, found, {"similar": self.dataset.user_ids})

    # ---------------------------------------------------------------------------------------------
    # What `Verbs` asks for.

    @property
    def knows_untrained_users(self) -> bool:
        # Held-out users are ranked for knowingly, with a warning before training.
        held_out = self.model.uses_history and len(self.dataset.given) > 0
        return not self.model.user_width or held_out

    def best(
        self,
        rows: Int[np.ndarray, "u"],
        k: int,
        known: Interactions,
        hidden: Interactions,
        allowed: Bool[np.ndarray, "i"],
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        if processes.count() > 1:
            raise InputError("recommendations are made by one process; start it alone")
        ranker = self._placed(known, len(rows))
        reads = self.model.uses_history and hidden is not known
        padded = filled_up(rows, ranker.batch_size)
        size = ranked(k, self.dataset.num_items)
        found = ranker.top_k(padded, size, known if reads else hidden, allowed)
        ids, scores = (x[: len(rows)] for x in found)
        if reads:
            # Each item of a history is left out of it: they are scored one by one.
            ids, scores = self._merged(ranker, rows, known, allowed, (ids, scores))
        return ids[:, :k], scores[:, :k]

    def _merged(
        self,
        ranker: PlacedRanker,
        rows: Int[np.ndarray, "u"],
        known: Interactions,
        allowed: Bool[np.ndarray, "i"],
        others: tuple[Int[np.ndarray, "u n"], Float[np.ndarray, "u n"]],
    ) -> tuple[Int[np.ndarray, "u m"], Float[np.ndarray, "u m"]]:
        """Rank what users have together with the best of what they have not."""
        width = power_of_two(int(known.counts[rows].max(initial=1)))
        own = np.zeros((len(rows), width), np.int32)
        is_own = np.zeros(own.shape, bool)
        for place, row in enumerate(rows.tolist()):
            items = known.of(row)
            own[place, : len(items)], is_own[place, : len(items)] = items, allowed[items]
        padded = filled_up(np.arange(len(rows), dtype=np.int32), ranker.batch_size)
        scores = ranker.pair_scores(rows[padded], own[padded])[: len(rows)]
        ids = np.concatenate([np.where(is_own, own, -1), others[0]], axis=1)
        scores = np.concatenate([np.where(is_own, scores, -np.inf), others[1]], axis=1)
        # Equal scores in the order of items.
        order = np.lexsort((ids, -scores))
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def pair_scores(
        self, rows: Int[np.ndarray, "n"], items: Int[np.ndarray, "n"]
    ) -> Float[np.ndarray, "n"]:
        ranker = self._few
        places = filled_up(np.arange(len(rows), dtype=np.int32), ranker.batch_size)
        return ranker.pair_scores(rows[places], items[places, None])[: len(rows), 0]

    def nearest_items(
        self, rows: Int[np.ndarray, "n"], k: int
    ) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        return self._few.nearest_items(rows, k, self.trained_items)

    def _placed(self, known: Interactions, users: int) -> PlacedRanker:
        """Return what ranks for so many users; tables are placed once for all requests."""
        if known is not self.everything and (self.model.uses_history or self.model.uses_neighbours):
            return self.ranker.placed(known, users)
        return self._many if users >= FEW_USERS else self._few

    @functools.cached_property
    def _few(self) -> PlacedRanker:
        return self.ranker.placed(self.everything, 1)

    @functools.cached_property
    def _many(self) -> PlacedRanker:
        return self.ranker.placed(self.everything, FEW_USERS)

    def top_k(
        self,
        users: Int[np.ndarray, "u"],
        k: int,
        known: Interactions,
        show_progress: bool = False,
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        """Find rows and scores of the k best items that are not in `known`.

        Args:
          users: rows of `known`.
          known: interactions of the users whose interactions this process has, all if tables are
            replicated. They are the histories too.
        """
        return self.ranker.top_k(users, k, known, known, show_progress)

    def evaluate(self, split: str = "test", show_progress: bool = False) -> dict[str, Any]:
        """Compute the metrics of all users with interactions in a split, `valid` or `test`.

        See `hlr_jax.evaluation.evaluate.evaluate_split` for what is ranked and returned.
        """
        own_users = self.placement.own_users if self.placement.layout.user else None
        ranks = _Ranks(self, show_progress)
        return evaluate_split(ranks, self.dataset, self.config, split, own_users)

    def validation_loss(self) -> float:
        """Compute the mean loss of the validation interactions, always with the same negatives."""
        positives = validation_positives(self.placement, self.dataset, self.config)
        dataset = self.dataset
        objective = make_objective(self.config, self.model, dataset.num_items, dataset.features)
        recipe = make_recipe(self.config, objective, dataset, 1)
        program = Program(self.config, recipe, self.placement, positives)
        return mean_loss(program, self.params, positives)

    @property
    def ranker(self) -> Ranker:
        config, length = self.config, 0
        if self.model.uses_history:
            length = config.evaluation.history_length or config.sampling.history_length
        choice = history_choice(config.sampling.history, self.dataset.popularity)
        draw = HistoryDraw(choice, Keys.of(config.seed).rank, length)
        batch_size = config.evaluation.batch_size
        return Ranker(self.model, self.params, self.placement, draw, batch_size)


@dataclasses.dataclass(frozen=True)
class _Ranks:
    """Ranks with a recommender, in the form that `evaluate_split` asks for."""

    recommender: Recommender
    show_progress: bool

    def top_items(
        self, users: Int[np.ndarray, "u"], k: int, known: Interactions
    ) -> Int[np.ndarray, "u k"]:
        return self.recommender.top_k(users, k, known, self.show_progress)[0]

    def pair_scores(
        self,
        users: Int[np.ndarray, "u"],
        candidates: Int[np.ndarray, "u n"],
        known: Interactions,
    ) -> Float[np.ndarray, "u n"]:
        return self.recommender.ranker.pair_scores(users, candidates, known)


def mean_loss(program: Program, params: Params, positives: Positives) -> float:
    """Compute the mean loss per term over all positives, with the run's validation negatives."""
    config, placement = program.config, program.placement
    key = Keys.of(config.seed).valid
    rows = ordered_rows(positives, config.training.batch_size, key)
    recipe = program.placed_recipe
    # There are no terms where users have seen all of a few shared negatives.
    return mean_of(*sum_of_loss(params, rows, recipe, placement.layout, placement.mesh))
