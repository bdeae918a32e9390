"""A trained model: recommend with it, save it, load it, evaluate it."""

import copy
import dataclasses
import functools
import pathlib
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hlr_jax import facts
from hlr_jax.config import Config, ShardingConfig, build
from hlr_jax.data.columns import column, columns
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation.evaluate import evaluate_split
from hlr_jax.evaluation.nearest import nearest
from hlr_jax.evaluation.ranker import PlacedRanker, Ranker, Ranks
from hlr_jax.evaluation.ranking import Tables
from hlr_jax.evaluation.requests import Ranked, best, filled_up
from hlr_jax.kernels.sizes import FEW_USERS
from hlr_jax.models.relation import Relation
from hlr_jax.parallel import processes
from hlr_jax.parallel.placement import Placement
from hlr_jax.runs import explanation, new_items, new_users, saved
from hlr_jax.runs.checkpoints import Checkpoints
from hlr_jax.runs.enlarged import as_ids, with_rows_for
from hlr_jax.runs.explanation import Explanation
from hlr_jax.runs.identity import Identity
from hlr_jax.runs.verbs import Ids, Verbs, check_unknown, listed
from hlr_jax.runs.words import about_model
from hlr_jax.runs.workdir import check_done, check_same_data, load_config, refit_folder, stored_data
from hlr_jax.sampling.histories import HistoryDraw, history_choice
from hlr_jax.training.fold_in import Fitting
from hlr_jax.training.fold_in_items import ItemFitting
from hlr_jax.training.inputs import make_objective, make_recipe, validation_positives
from hlr_jax.training.loop import Program
from hlr_jax.training.state import Keys, Sizes, num_parameters, param_shapes
from hlr_jax.training.validation import mean_loss
from hlr_jax.types import Params


@dataclasses.dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return facts.as_text("Recommender", self._facts())

    def _repr_html_(self) -> str:
        return facts.as_html("Recommender", self._facts())

    def _facts(self) -> dict[str, str]:
        data = self.dataset
        sizes = Sizes(data.num_users, data.num_items, data.num_features)
        of_model = about_model(self.config, num_parameters(self.model, sizes))
        return of_model | {"data": data.name} | data.facts()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recommender":
        # Everything else is never changed in place.
        return dataclasses.replace(self, dataset=copy.deepcopy(self.dataset, memo))

    def __copy__(self) -> "Recommender":
        return dataclasses.replace(self)

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a Recommender cannot be pickled; recommender.save('model.safetensors') writes a file "
            "that hlr_jax.load('model.safetensors') reads, in other processes too"
        )

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
        is_second = config.training.refit and refitted
        if is_second:
            workdir, dataset = refit_folder(workdir), dataset.joined()
            config = load_config(workdir)
        check_same_data(workdir, dataset)
        model = build.build_model(config)
        sizes = dataset.num_users, dataset.num_items
        placement = Placement.for_ranking(config.sharding, model, *sizes)
        identity = Identity.of(config, dataset.digest)
        store = Checkpoints(workdir / "checkpoints", placement.used_rows, identity, is_trained=True)
        if is_second:
            check_done(workdir, config, store.progress())
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

    @property
    def tables(self) -> Tables:
        """The points, histories and the model that one device ranks with."""
        return self._few.tables

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
        allowed = self._is_known
        found = nearest(self.model.geometry, points, rows, k, allowed)
        return self._lists("user", ids, found, {"similar": self.dataset.user_ids})

    def explain(self, user: Any, item: Any, k: int = 10) -> Explanation:
        """Say why an item is where it is for a user; see `Explanation`.

        Args:
          k: rows of each of its tables, at most.

        Raises:
          InputError: an unknown user or item, or k below 1.
        """
        if k < 1:
            raise InputError(f"k={k}: use 1 or more")
        row = self._rows(listed("user", [user]), self.everything, "error")[0]
        of_item = self._item_rows("item", listed("item", [item]))[0]
        tables = self._few.tables
        return explanation.explain(
            tables, self.dataset, self.everything, (int(row), int(of_item)), k
        )

    # ---------------------------------------------------------------------------------------------
    # New users.

    def fold_in(
        self, frame: Any, user: str = "user", item: str = "item", unknown: str = "error"
    ) -> "Recommender":
        """Return a recommender that knows the interactions of a frame too.

        Rows of items that were not trained on are fitted first, by those of their users who were.
        Then rows of all users of the frame are fitted anew, by these interactions and what they
        have in training. Every other row stays as it is. Users may be new or known.

        Args:
          frame: with a column of users and one of items; see `Dataset.from_frame`.
          unknown: what becomes of items which nobody of training has: `error`, or `popular` to
            leave them out. Users who are left with nothing then stay unknown, as `recommend` with
            `unknown="popular"` takes them.

        Raises:
          InputError: a column cannot be used, there is no row, or nothing is known of an item.
        """
        check_unknown(unknown)
        found = columns(frame, {"user": user, "item": item})
        pairs = new_items.Pairs(
            as_ids(self.dataset, "user", user, column("user", found["user"])),
            as_ids(self.dataset, "item", item, column("item", found["item"])),
        )
        if not len(pairs.users):
            raise InputError(f"{user}, {item}: the frame has no row; give it one at least")
        pairs, of_items = new_items.fittable(self.dataset, self.model, pairs, unknown)
        return self._with_items(of_items)._with_users(pairs)

    def _with_items(self, pairs: new_items.Pairs) -> "Recommender":
        """Fit the rows of items by all that known users have of them."""
        if not len(pairs.items):
            return self
        ids, places = np.unique(pairs.items, return_inverse=True)
        users = self.dataset.user_rows(pairs.users.tolist())
        who = Interactions.from_pairs(places, users, len(ids), self.dataset.num_users)
        dataset, params = with_rows_for(self.dataset, self._whole_params(), *pairs)
        rows = np.searchsorted(dataset.item_ids, ids)
        table = new_items.with_rows_of(self._item_fitting, params["item"], rows, who)
        return Recommender.of(self.config, dataset, self.model, params | {"item": table})

    def _with_users(self, pairs: new_items.Pairs) -> "Recommender":
        """Fit the rows of users by all that they have."""
        if not len(pairs.users):
            return self
        dataset, params = with_rows_for(self.dataset, self._whole_params(), *pairs)
        rows = np.unique(np.searchsorted(dataset.user_ids, pairs.users))
        table = new_users.with_rows_of(self._fitting, dataset, params["user"], rows)
        return Recommender.of(self.config, dataset, self.model, params | {"user": table})

    @functools.cached_property
    def _item_fitting(self) -> ItemFitting:
        return new_items.item_fitting_of(self.config, self._fitting, self.dataset)

    @functools.cached_property
    def _fitting(self) -> Fitting:
        params = self._on_one_device.ranker.replicated_rows(self.everything)
        return new_users.fitting_of(self.config, self.model, params, self.ranker.draw)

    # ---------------------------------------------------------------------------------------------
    # What `Verbs` asks for.

    @property
    def knows_untrained_users(self) -> bool:
        # Held-out users are ranked for knowingly, with a warning before training.
        held_out = self.model.uses_history and len(self.dataset.given) > 0
        return not self.model.user_width or held_out

    def best(
        self, rows: Int[np.ndarray, "u"], k: int, of: Ranked
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        if processes.count() > 1:
            raise InputError("recommendations are made by one process; start it alone")
        # What a user has is scored one by one, on one device.
        users = len(rows) if of.hidden is of.known or not self._is_spread else 1
        return best(self._placed(of.known, users), rows, k, of)

    def best_for_somebody(
        self, k: int, of: Ranked
    ) -> tuple[Int[np.ndarray, "1 k"], Float[np.ndarray, "1 k"]]:
        if not len(of.known):
            raise InputError("history: give at least one item, or use unknown='popular'")
        ranker = new_users.ranker_of(self._fitting, self._few, of.known)
        return best(ranker, np.zeros(1, np.int32), k, of)

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
        if known is self.everything:
            is_for_many = users >= FEW_USERS or (self._is_spread and users > 1)
            return self._many if is_for_many else self._few
        alone = self._on_one_device
        if alone.model.uses_neighbours:
            return alone.ranker.placed(known, users)
        return self._few.with_history(known) if alone.model.uses_history else self._few

    @property
    def _is_spread(self) -> bool:
        return bool(self.placement.layout.user)

    @functools.cached_property
    def _on_one_device(self) -> "Recommender":
        """The same with its tables together, where devices have shards of them."""
        if not self._is_spread:
            return self
        config = dataclasses.replace(self.config, sharding=ShardingConfig())
        return Recommender.of(config, self.dataset, self.model, self._whole_params())

    def _whole_params(self) -> Params:
        """Read the parameters, without rows that fill shards up."""
        params = jax.tree.map(np.asarray, dict(self.params))
        rows = {"user": self.dataset.num_users, "item": self.dataset.num_items}
        return params | {name: params[name][:count] for name, count in rows.items()}

    @functools.cached_property
    def _few(self) -> PlacedRanker:
        return self._on_one_device.ranker.placed(self.everything, 1)

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
        ranks = Ranks(self.ranker, show_progress)
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
