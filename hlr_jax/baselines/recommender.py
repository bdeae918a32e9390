"""A fitted baseline that answers as a trained model does: recommend, score, save, load."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from hlr_jax import archive, facts
from hlr_jax.baselines import scoring
from hlr_jax.baselines.fitted import Fitted, restored
from hlr_jax.baselines.methods import METHODS, Method
from hlr_jax.baselines.scoring import best, best_of_rows, in_parts
from hlr_jax.config import EvaluationConfig
from hlr_jax.data.arrays import from_arrays, to_arrays
from hlr_jax.data.dataset import Dataset
from hlr_jax.evaluation.requests import Ranked
from hlr_jax.runs.recommender import Recommender
from hlr_jax.runs.verbs import Verbs

KIND = "baseline"
# What tuning leaves in its folder.
MODEL_FILE = "model.safetensors"
_DATA, _FITTED = "data/", "fitted/"
_USUAL = EvaluationConfig()


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
        return facts.as_text("BaselineRecommender", self._facts())

    def _repr_html_(self) -> str:
        return facts.as_html("BaselineRecommender", self._facts())

    def _facts(self) -> dict[str, str]:
        chosen = ", ".join(f"{name}={value!r}" for name, value in self.hyperparameters.items())
        about = {"method": self.name, "with": chosen, "data": self.dataset.name}
        return about | self.dataset.facts()

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
        of_data, of_fitted = (archive.below(prefix, arrays) for prefix in (_DATA, _FITTED))
        try:
            dataset = from_arrays(str(description["data"]), of_data)
            fitted = restored(description["fitted"], of_fitted, description["numbers"])
            if dataset is None:
                raise ValueError
            return cls(description["name"], description["hyperparameters"], dataset, fitted)
        except (KeyError, TypeError, ValueError):
            raise archive.damaged(path) from None

    def evaluate(
        self, split: str = "test", evaluation: EvaluationConfig = _USUAL
    ) -> dict[str, Any]:
        """Compute the metrics of all users with interactions in a split, `valid` or `test`.

        See `hlr_jax.evaluation.evaluate.evaluate_split` for what is ranked and returned.

        Args:
          evaluation: of the model that the baseline is compared with, `config.evaluation`.

        Raises:
          InputError: there is no such split, or its settings do not go with the data.
        """
        return scoring.evaluate(self.fitted, self.dataset, evaluation, split)

    # ---------------------------------------------------------------------------------------------
    # What `Verbs` asks for.

    @property
    def knows_untrained_users(self) -> bool:
        return self.fitted.ranks_untrained_users

    def best(
        self, rows: Int[np.ndarray, "u"], k: int, of: Ranked
    ) -> tuple[Int[np.ndarray, "u k"], Float[np.ndarray, "u k"]]:
        return best(self.fitted, rows, k, of)

    def best_for_somebody(
        self, k: int, of: Ranked
    ) -> tuple[Int[np.ndarray, "1 k"], Float[np.ndarray, "1 k"]]:
        def scorer(users: np.ndarray, history: scipy.sparse.csr_matrix) -> np.ndarray:
            return self.fitted.for_new_users(history)

        return best(scorer, np.zeros(1, np.int32), k, of)

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
        return best_of_rows(alike, k)


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
