"""A fitted baseline that answers as a trained model does: recommend, score, save, load."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from hlr_jax import archive
from hlr_jax.baselines.fitted import Fitted, restored
from hlr_jax.baselines.methods import METHODS, Method
from hlr_jax.baselines.scoring import as_matrix, in_parts
from hlr_jax.data.arrays import from_arrays, to_arrays
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation.requests import ranked
from hlr_jax.runs.recommender import Recommender
from hlr_jax.runs.verbs import Filters, Ids, Verbs, listed

KIND = "baseline"
# What tuning leaves in its folder.
MODEL_FILE = "model.safetensors"
_DATA, _FITTED = "data/", "fitted/"


@dataclasses.dataclass(frozen=True, repr=False)
class BaselineRecommender(Verbs):
    """A fitted baseline with the data set that it was fitted on.

    Attributes:
      name: of `METHODS`.
      hyperparameters: that it was fitted with.
      dataset: whose training part it was fitted on.
      fitted: what came of it.
    """

    name: str
    hyperparameters: Mapping[str, Any]
    dataset: Dataset
    fitted: Fitted

    def __repr__(self) -> str:
        return f"BaselineRecommender({self.name}, of {self.dataset!r})"

    @classmethod
    def fit(cls, method: Method, dataset: Dataset, seed: int = 0) -> "BaselineRecommender":
        """Fit a baseline, as `hlr_jax.baselines.Ease(regularization=500.0)`.

        Raises:
          InputError: a package is not installed, or the data are too large.
          DivergedError: what was fitted is not finite.
        """
        name = next(name for name, known in METHODS.items() if known is type(method))
        fitted = method.fit(dataset.train, seed)
        return cls(name, dataclasses.asdict(method), dataset, fitted)

    def save(self, path: str | pathlib.Path) -> None:
        """Save the baseline as one file with its data; see `Recommender.save`.

        Raises:
          InputError: it cannot be written.
        """
        arrays, numbers = self.fitted.state()
        named = {_DATA + name: array for name, array in to_arrays(self.dataset).items()}
        named |= {_FITTED + name: array for name, array in arrays.items()}
        description = {
            "kind": KIND,
            "data": self.dataset.name,
            "name": self.name,
            "hyperparameters": dict(self.hyperparameters),
            "fitted": type(self.fitted).__name__,
            "numbers": numbers,
        }
        archive.write(pathlib.Path(path), description, named)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "BaselineRecommender":
        """Load what `save` has written.

        Raises:
          InputError: it is damaged, of a newer version, or a trained model.
        """
        path = pathlib.Path(path)
        description, arrays = archive.read(path, KIND)
        parts = {
            prefix: {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            for prefix in (_DATA, _FITTED)
        }
        try:
            dataset = from_arrays(description["data"], parts[_DATA])
            fitted = restored(description["fitted"], parts[_FITTED], description["numbers"])
            if dataset is None:
                raise ValueError
            return cls(description["name"], description["hyperparameters"], dataset, fitted)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: the file is damaged; copy or save it again") from None

    def recommend_for(self, history: Ids, k: int = 10, **filters: Unpack[Filters]) -> pl.DataFrame:
        """Recommend to somebody whom the baseline does not know; see `Recommender.recommend_for`.

        Raises:
          InputError: also where the baseline ranks for users that it was fitted on only.
        """
        rows = self._item_rows("history", listed("history", history))
        self._check_k(k)
        known = Interactions.from_pairs(np.zeros(len(rows)), rows, 1, self.dataset.num_items)
        scores = self.fitted.for_new_users(as_matrix(known))
        allowed = self._allowed(filters.get("items"), filters.get("exclude"))[None].copy()
        if filters.get("filter_seen", True):
            allowed[0, rows] = False
        found = _best(np.where(allowed, scores, -np.inf), k)
        return self._lists("user", [0], found, self._named("item")).drop("user")

    # ---------------------------------------------------------------------------------------------
    # What `Verbs` asks for.

    @property
    def knows_untrained_users(self) -> bool:
        return self.fitted.ranks_untrained_users

    def best(
        self,
        rows: Int[np.ndarray, "u"],
        k: int,
        known: Interactions,
        hidden: Interactions,
        allowed: Bool[np.ndarray, "i"],
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        ids = np.full((len(rows), k), -1, np.int32)
        found = np.full((len(rows), k), -np.inf, np.float32)
        for part, _, scores in in_parts(self.fitted, rows, known):
            left = np.where(allowed[None], scores, -np.inf).astype(np.float32)
            of_part = hidden.offsets[rows[part]], hidden.offsets[rows[part] + 1]
            for row, (start, stop) in enumerate(zip(*of_part, strict=True)):
                left[row, hidden.items[start:stop]] = -np.inf
            ids[part], found[part] = _best(left, k)
        return ids, found

    def pair_scores(
        self, rows: Int[np.ndarray, "n"], items: Int[np.ndarray, "n"]
    ) -> Float[np.ndarray, "n"]:
        users, places = np.unique(rows, return_inverse=True)
        found = np.empty(len(rows), np.float32)
        for part, _, scores in in_parts(self.fitted, users, self.everything):
            mine = (places >= part.start) & (places < part.stop)
            found[mine] = scores[places[mine] - part.start, items[mine]]
        return found

    def nearest_items(
        self, rows: Int[np.ndarray, "n"], k: int
    ) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        alike = np.array(self.fitted.similarities(rows), np.float32)
        alike[:, ~self.trained_items] = -np.inf
        alike[np.arange(len(rows)), rows] = -np.inf
        return _best(alike, k)


def _best(
    scores: Float[np.ndarray, "u i"], k: int
) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
    """Find the k best items of each row, ties by id; -1 and -inf where fewer are left."""
    count = scores.shape[1]
    found = jax.lax.top_k(np.asarray(scores, np.float32), ranked(k, count))
    best, ids = (np.asarray(x)[:, :k] for x in found)
    return np.where(best > -np.inf, ids, -1).astype(np.int32), best


def load(path: str | pathlib.Path) -> Verbs:
    """Load a trained model or a baseline: a saved file, or the folder of a run.

    Raises:
      InputError: there is none, or it cannot be used.
    """
    if archive.kind_of(pathlib.Path(path)) == KIND:
        return BaselineRecommender.load(path)
    folder = pathlib.Path(path) / MODEL_FILE
    if not (pathlib.Path(path) / "config.json").is_file() and folder.is_file():
        return BaselineRecommender.load(folder)
    return Recommender.load(path)
