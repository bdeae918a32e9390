"""Recommend items with a trained model, and evaluate it."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hlr_jax.config import Config, build
from hlr_jax.data import loading
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation.evaluate import evaluate_split
from hlr_jax.evaluation.ranker import Ranker
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.workdir import check_same_data, finished_refit, load_config
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
class Recommender:
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
        workdir: str | pathlib.Path,
        dataset: Dataset | None = None,
        refitted: bool = True,
    ) -> "Recommender":
        """Load the best epoch of a run from its working directory.

        Args:
          workdir: the folder that training wrote to.
          dataset: the data the run was trained on, if that is not what `config.data` says.
          refitted: which model of a run with `config.training.refit` to load: the one that was
            trained on validation too, or the one that was selected on validation.

        Raises:
          InputError: there is no trained model, or its data set has changed or cannot be found.
        """
        workdir = pathlib.Path(workdir)
        config = load_config(workdir)
        dataset = dataset or loading.load(config.data)
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

    def recommend(self, users: Iterable[int | str], k: int = 10) -> pl.DataFrame:
        """Recommend the k best items that a user is not known to have (`Dataset.known`).

        Args:
          users: ids as they stand in the data set's files.
          k: items per user; users with fewer items left get those.

        Returns:
          Columns `user`, `rank` (from 1), `item`, `title` (if the data set has titles) and `score`
          (minus the squared distance; larger is better).

        Raises:
          InputError: unknown user, or k outside 1 to the catalogue's size.
        """
        if isinstance(users, int | str):
            raise InputError(f"users={users!r}: give a list of user ids")
        if not 1 <= k <= self.dataset.num_items:
            raise InputError(f"k={k}: use 1 to {self.dataset.num_items}, the catalogue's size")
        if processes.count() > 1:
            raise InputError("recommendations are made by one process; start it alone")
        rows = np.array([self.dataset.user_index(user) for user in users], np.int32)
        known = self.dataset.known("test")
        ids, scores = self.top_k(rows, k, known)
        found = ids >= 0
        item = ids[found]
        return pl.DataFrame(
            {
                "user": self.dataset.user_ids[np.repeat(rows, found.sum(axis=1))],
                "rank": np.broadcast_to(np.arange(1, k + 1), ids.shape)[found],
                **self._named(item),
                "score": scores[found],
            }
        )

    def history(self, user: int | str) -> pl.DataFrame:
        """List what a user is known to have: columns `item` and, if any, `title`.

        That is what it has in training, what is given of it, and what it has in validation.

        Raises:
          InputError: unknown user.
        """
        row = self.dataset.user_index(user)
        parts = (self.dataset.train, self.dataset.given, self.dataset.valid)
        return pl.DataFrame(self._named(np.concatenate([part.of(row) for part in parts])))

    def _named(self, items: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Look up the ids of item rows, and their titles if the data set has some."""
        ids = {"item": self.dataset.item_ids[items]}
        titles = self.dataset.item_titles
        return ids if titles is None else ids | {"title": titles[items]}

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
