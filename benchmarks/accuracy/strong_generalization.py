"""List the protocols of strong generalization: validation and test are of users held out.

Nothing of these is trained on; four fifths of what they have are given. A model with a row for each
user cannot take part.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from benchmarks.accuracy.entries import Baseline, Model, Protocol, Reference, full_catalog

_METRICS = ("ndcg@100", "recall_capped@20", "recall_capped@50")
_SPLIT = (
    "Held-out users, of whom four fifths of their interactions are given and the others are to be "
    "predicted, as in Liang et al. (WWW 2018)."
)


def _protocol(
    name: str,
    about: str,
    config: str,
    settings: Mapping[str, float],
    references: Mapping[str, Sequence[float]] = MappingProxyType({}),
    models: Sequence[Model] = (),
) -> Protocol:
    """A protocol of strong generalization.

    Args:
      settings: fields of `data`, fractions of users among them.
      references: figures of `_METRICS` by the name of a model.
    """
    of_data = {f"data.{field}": value for field, value in settings.items()}
    shared = {"data.split": "held_out_users", "evaluation.cutoffs": (20, 50, 100)}
    return Protocol(
        name=name,
        about=f"{about} {_SPLIT}",
        config=config,
        settings=shared | of_data,
        metrics=_METRICS,
        selection_metric="ndcg@100",
        entries=(
            Baseline("most_popular"),
            Baseline("item_knn"),
            Baseline("ials", is_random=True),
            Baseline("ials_scaled", is_random=True),
            Baseline("ease"),
            *models,
        ),
        references=tuple(
            Reference(model, dict(zip(_METRICS, values, strict=True)), "Steck, WWW 2019, table 1")
            for model, values in references.items()
        ),
    )


STRONG_GENERALIZATION = (
    _protocol(
        "ml-1m-strong",
        "MovieLens 1M, every rating a positive, users with at least 5; a tenth of the users for "
        "validation and a tenth for test.",
        "published.py:ml_1m/cml",
        {"min_rating": 0.0, "core": 5, "item_core": 0, "valid_fraction": 0.1, "test_fraction": 0.1},
        models=full_catalog("ml_1m", "items_only"),
    ),
    _protocol(
        "lastfm-2k-strong",
        "Last.fm, users with at least 5 artists; a tenth of the users for validation and a tenth "
        "for test.",
        "published.py:lastfm_2k/cml",
        {"core": 5, "item_core": 0, "valid_fraction": 0.1, "test_fraction": 0.1},
        models=full_catalog("lastfm_2k", "items_only"),
    ),
    # Fractions that are just the numbers of users that the paper holds out.
    _protocol(
        "ml-20m-strong",
        "MovieLens 20M, ratings of 4 and more, users with at least 5; 10,000 of 136,677 users for "
        "validation and as many for test.",
        "published.py:ml_20m/cml",
        {
            "core": 5,
            "item_core": 0,
            "valid_fraction": 10_000 / 136_677,
            "test_fraction": 10_000 / 136_677,
        },
        {"Mult-VAE": (0.426, 0.395, 0.537), "EASE (paper)": (0.420, 0.391, 0.521)},
    ),
    _protocol(
        "msd-strong",
        "Million Song, every play a positive, users with at least 20 songs and songs with at least "
        "200 users (repeated until all have them, in the paper once); 50,000 of the paper's "
        "571,355 users for validation and as many for test, here the same shares.",
        "published.py:echonest/cml",
        {
            "min_rating": 0.0,
            "core": 20,
            "item_core": 200,
            "valid_fraction": 50_000 / 571_355,
            "test_fraction": 50_000 / 571_355,
        },
        {"Mult-VAE": (0.316, 0.266, 0.364), "EASE (paper)": (0.389, 0.333, 0.428)},
    ),
)
