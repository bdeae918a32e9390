"""A trained model with its data: ranks, recommends, and is measured."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hlr_jax import models
from hlr_jax.config import Config, EvaluationConfig
from hlr_jax.data import datasets
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics, ranking
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement, Positives
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.workdir import check_same_data, finished_refit, load_config
from hlr_jax.sampling import sources
from hlr_jax.sampling.sources import Source
from hlr_jax.training.objective import Params
from hlr_jax.training.step import Keys


@dataclasses.dataclass(frozen=True)
class Recommender:
    """A model, its parameters, and the data set whose users and items they stand for."""

    config: Config
    dataset: Dataset
    model: Relation
    params: Params
    placement: Placement

    @classmethod
    def of(cls, config: Config, dataset: Dataset, model: Relation, params: Params) -> "Recommender":
        """With parameters that are not placed yet."""
        placement = Placement.of(config, model, dataset.num_users, dataset.num_items)
        return cls(config, dataset, model, placement.params(params), placement)

    @classmethod
    def load(
        cls,
        workdir: str | pathlib.Path,
        dataset: Dataset | None = None,
        refitted: bool = True,
    ) -> "Recommender":
        """The best epoch of a run, from its working directory.

        Args:
          workdir: what training wrote.
          dataset: the data the run was trained on, if that is not what `config.data` says.
          refitted: of a run with `config.training.refit`, take the model that was trained on
            validation too; else the one that was chosen on it.

        Raises:
          InputError: there is no trained model, or its data set is not to be had any more or
            has changed.
        """
        workdir = pathlib.Path(workdir)
        config = load_config(workdir)
        dataset = dataset or datasets.load(config.data)
        if config.training.refit and refitted:
            return cls.load(finished_refit(workdir), dataset.joined())
        check_same_data(workdir, dataset)
        model = models.build(config.model.name, config.model.dim, config.model.options)
        placement = Placement.for_ranking(config, model, dataset.num_users, dataset.num_items)
        store = Checkpoints(workdir / "checkpoints", placement.used_rows)
        params = store.restore_best(placement.param_shapes(model, dataset.num_features))
        return cls(config, dataset, model, params, placement)

    def with_evaluation(self, **changes: Any) -> "Recommender":
        """The same, with other values of fields of `config.evaluation`."""
        evaluation = dataclasses.replace(self.config.evaluation, **changes)
        config = dataclasses.replace(self.config, evaluation=evaluation)
        return dataclasses.replace(self, config=config)

    def recommend(self, users: Iterable[int | str], k: int = 10) -> pl.DataFrame:
        """The k best items that each user has not touched in training or validation.

        Args:
          users: ids as they stand in the data set's files.
          k: items per user; users with fewer items left get those.

        Returns:
          Columns `user`, `rank` (from 1), `item`, `title` (where the data set has titles) and
          `score` (minus the squared distance, larger is better).

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
        known = self.dataset.train.union(self.dataset.valid)
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
        """What a user touched in training and validation: columns `item` and, if any, `title`.

        Raises:
          InputError: unknown user.
        """
        row = self.dataset.user_index(user)
        parts = (self.dataset.train, self.dataset.valid)
        return pl.DataFrame(self._named(np.concatenate([part.of(row) for part in parts])))

    def _named(self, items: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Ids, and titles where there are any, of item rows."""
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
        """Item rows and scores of the k best items outside `known`, which is also the history.

        Args:
          users: rows of `known`, which is of the users whose interactions this process has.
        """
        return ranking.top_k(
            self.model,
            self.params,
            known,
            known,
            users,
            k,
            self._history_length,
            self._key,
            self._log_weights,
            self.config.evaluation.batch_size,
            show_progress,
            self.placement,
        )

    def evaluate(self, split: str = "test", show_progress: bool = False) -> dict[str, Any]:
        """Metrics of all users with interactions in the split, `valid` or `test`.

        Every process of a run measures some of the users, and returns the metrics of all.

        Test excludes training and validation items from the ranking and uses both as
        history; validation does so with training alone.

        Returns:
          `protocol`, `users`, every metric of `evaluation.metrics` at every cutoff, and intervals,
          cohorts and `per_user` (metric to list of values, None where it leaves a user out) as
          configured.

        Raises:
          InputError: the split is empty, a cutoff passes the catalogue, or the protocol asks
            for negatives that the data set does not give.
        """
        evaluation, dataset = self.config.evaluation, self.dataset
        relevant = {"valid": dataset.valid, "test": dataset.test}[split]
        if not len(relevant):
            raise InputError(f"data set {dataset.name}: no user has an item in the {split} split")
        own = self.placement.own_users
        relevant, known = relevant.part(own), dataset.train.part(own)
        if split == "test":
            known = known.union(dataset.valid.part(own))
        users = np.flatnonzero(relevant.counts).astype(np.int32)
        check_cutoffs(evaluation.cutoffs, dataset, "config.evaluation.cutoffs")
        if evaluation.protocol == "sampled":
            if split != "test":
                raise InputError(
                    "config.evaluation.protocol='sampled': negatives are given for the test split "
                    f"only; use full for {split}"
                )
            ranks = self._sampled_ranks(known)
            return summarize(metrics.evaluate_sampled(ranks, evaluation.cutoffs), evaluation)
        if not self.placement.layout.user:
            users = np.array_split(users, processes.count())[processes.index()]
        top, _ = self.top_k(users, max(evaluation.cutoffs), known, show_progress)
        return measure(top, users, relevant, dataset.popularity, evaluation)

    def validation_loss(self) -> float:
        """Mean loss per term of the validation interactions, always on the same negatives."""
        positives = validation_positives(self.placement, self.dataset, self.config)
        key = Keys.of(self.config.seed).valid
        return self.placement.mean_loss(self.params, positives, key, self.model, self.config)

    def _sampled_ranks(self, known: Interactions) -> Int[np.ndarray, "u"]:
        """Rank of each user's one test item among its given negatives."""
        dataset = self.dataset
        check_protocol(self.config, dataset)
        users, candidates = given_candidates(dataset)
        params = ranking.read_params(self.model, self.placement.one_copy(self.params), known)
        rows, batch = sources.Rows.of(known), self.config.evaluation.batch_size
        scores = np.empty(candidates.shape, np.float32)
        for start in range(0, len(users), batch):
            part = slice(start, start + batch)
            scores[part] = ranking.pair_scores(
                params,
                jnp.asarray(users[part], jnp.int32),
                jnp.asarray(candidates[part]),
                rows,
                self._log_weights,
                self._key,
                model=self.model,
                length=self._history_length,
            )
        listed = candidates[:, 1:] == candidates[:, :1]
        return metrics.sampled_ranks(scores[:, 0], scores[:, 1:], listed)

    @property
    def _history_length(self) -> int:
        if not self.model.uses_history:
            return 0
        return self.config.evaluation.history_length or self.config.sampling.history_length

    @property
    def _key(self) -> jax.Array:
        return Keys.of(self.config.seed).rank

    @property
    def _log_weights(self) -> jax.Array | None:
        return sources.history_log_weights(self.config.sampling.history, self.dataset.popularity)


def training_positives(placement: Placement, dataset: Dataset, config: Config) -> Positives:
    """The training interactions, or the users who have some, where the devices want them."""
    by_user = config.training.batch_of == "users"
    log_weights = sources.history_log_weights(config.sampling.history, dataset.popularity)

    def source_of(users: slice) -> Source:
        first, train = int(dataset.train.offsets[users.start]), dataset.train.part(users)
        source = sources.training_source(
            train,
            log_weights,
            first,
            config.sampling.skew,
            dataset.popularity,
            dataset.features,
        )
        return source.of_users(train.counts) if by_user else source

    return placement.positives(_rows_before(dataset.train, by_user), source_of)


def validation_positives(placement: Placement, dataset: Dataset, config: Config) -> Positives:
    """The validation interactions, or the users who have some, where the devices want them."""
    by_user = config.training.batch_of == "users"
    log_weights = sources.history_log_weights(config.sampling.history, dataset.popularity)

    def source_of(users: slice) -> Source:
        train, valid = dataset.train.part(users), dataset.valid.part(users)
        first = int(dataset.valid.offsets[users.start])
        source = sources.validation_source(
            train, valid, log_weights, first, config.sampling.skew, dataset.popularity
        )
        return source.of_users(valid.counts, valid) if by_user else source

    return placement.positives(_rows_before(dataset.valid, by_user), source_of)


def _rows_before(positives: Interactions, by_user: bool) -> Int[np.ndarray, "u_plus_1"]:
    """How many rows of a source those users have together that come before each user."""
    return np.append(0, np.cumsum(positives.counts > 0)) if by_user else positives.offsets


def given_candidates(
    dataset: Dataset,
) -> tuple[Int[np.ndarray, "u"], Int[np.ndarray, "u n"]]:
    """Users with one test item and given negatives; that item, then the negatives, of each."""
    assert dataset.given_negatives is not None
    users = np.flatnonzero((dataset.given_negatives >= 0).all(axis=1) & (dataset.test.counts == 1))
    positives = dataset.test.items[dataset.test.offsets[users]]
    return users, np.concatenate([positives[:, None], dataset.given_negatives[users]], axis=1)


def measure(
    top: Int[np.ndarray, "u k"],
    users: Int[np.ndarray, "u"],
    relevant: Interactions,
    popularity: Int[np.ndarray, "i"],
    evaluation: EvaluationConfig,
) -> dict[str, Any]:
    """All metrics of the ranked lists of all processes, as `Recommender.evaluate` returns them.

    Args:
      top: item rows, best first, -1 where a list is shorter.
      users: whose lists these are.
      relevant: what should be found.
      popularity: training interactions of each item.
    """
    cutoffs = evaluation.cutoffs
    found = metrics.recommended(top, users, relevant, cutoffs)
    per_user = processes.joined(metrics.evaluate(top, users, relevant, popularity, cutoffs))
    of_processes = processes.joined({"found": found[None]})["found"]
    everywhere = np.asarray(of_processes.any(axis=0))
    catalogue = metrics.of_recommended(everywhere, popularity, cutoffs)
    return summarize(per_user, evaluation) | catalogue


def summarize(per_user: dict[str, np.ndarray], evaluation: EvaluationConfig) -> dict[str, Any]:
    """Means, and what else is configured; which users resample or group is fixed."""
    summary = {"protocol": evaluation.protocol} | metrics.summarize(
        per_user,
        bootstrap=evaluation.bootstrap,
        cohorts=evaluation.cohorts,
        cohort_size=evaluation.cohort_size,
    )
    if evaluation.per_user:
        summary["per_user"] = {
            name: [None if np.isnan(value) else value for value in values.round(6).tolist()]
            for name, values in per_user.items()
        }
    return summary


def check_protocol(config: Config, dataset: Dataset) -> None:
    """Raises InputError where the sampled protocol has no negatives to rank among."""
    if config.evaluation.protocol == "sampled" and dataset.given_negatives is None:
        raise InputError(
            f"config.evaluation.protocol='sampled': data set {dataset.name} gives no "
            "negatives; use full"
        )
    if config.evaluation.protocol == "sampled" and config.sharding.is_sharded:
        raise InputError(
            "config.evaluation.protocol='sampled': is for whole tables; use full, or "
            "config.sharding.tables='replicated'"
        )


def check_cutoffs(cutoffs: Sequence[int], dataset: Dataset, field: str) -> None:
    """Raises InputError where a list would be longer than the catalogue."""
    if max(cutoffs) > dataset.num_items:
        raise InputError(
            f"{field}: a cutoff of {max(cutoffs)} is more than the catalogue's "
            f"{dataset.num_items} items; use at most that"
        )
