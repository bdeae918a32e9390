"""What cannot be trained is refused in one line, before anything is written."""

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from support.small_runs import planted
from table_runs import config_of, hand_made, train

from hlr_jax import config as configs
from hlr_jax.config import Config
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.models import RELATIONS
from hlr_jax.runs import experiment

pytestmark = pytest.mark.usefixtures("own_folders")


def refused(values: dict[str, Any], workdir: pathlib.Path) -> str:
    """The error of a run with these changed fields, `section.name` to value."""
    nested = configs.as_dict(Config())
    for name, value in values.items():
        section, field = name.split(".")
        nested[section][field] = value
    with pytest.raises(InputError) as caught:
        train(configs.from_config_dict(nested), workdir)
    assert "\n" not in str(caught.value)
    assert not workdir.exists()
    return str(caught.value)


SMALL = {
    "data.name": "file",
    "data.core": 0,
    "model.name": "hlr",
    "model.dim": 4,
    "sampling.history_length": 3,
    "evaluation.cutoffs": (3,),
    "training.epochs": 1,
}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"model.dims": 3}, "config.model.dims: there is no such field; did you mean dim?"),
        ({"training.epoch": 3}, "config.training.epoch: there is no such field"),
        (
            {"model.name": "mf"},
            f"config.model.name='mf': use one of {', '.join(RELATIONS.names())}",
        ),
        ({"model.dim": 0}, "config.model.dim=0: the embedding size must be at least 1"),
        ({"model.slots": 0}, "config.model.slots=0: use at least 1"),
        ({"model.clip_norm": 0.5}, "config.model.clip_norm: renamed, use config.geometry.radius"),
        ({"geometry.radius": 0.0}, "config.geometry.radius=0.0"),
        ({"geometry.name": "cube"}, "config.geometry.name='cube': use one of ball, lorentz"),
        ({"loss.margin": -0.5}, "config.loss.margin=-0.5: the margin must not be negative"),
        ({"sampling.num_negatives": 0}, "config.sampling.num_negatives=0"),
        ({"sampling.negatives": "pool"}, "config.sampling.negatives='pool': use one of full_cat"),
        ({"sampling.history_length": 0}, "config.sampling.history_length=0"),
        (
            {"sampling.history_length": 21},
            "config.sampling.history_length=21: the catalogue has 20 items",
        ),
        ({"evaluation.cutoffs": (3, 21)}, "config.evaluation.cutoffs: a cutoff of 21 is more than"),
        ({"evaluation.cutoffs": (0,)}, "config.evaluation.cutoffs=(0,)"),
        ({"evaluation.cohorts": 5, "evaluation.cohort_size": 9}, "cohorts"),
        ({"evaluation.protocol": "sampled"}, "config.evaluation.protocol='sampled'"),
        (
            {"training.selection_metric": "ndcg@21"},
            "config.training.selection_metric: a cutoff of 21 is more than",
        ),
        ({"training.selection_metric": "ndgc@10"}, "config.training.selection_metric='ndgc@10'"),
        ({"training.batch_size": 0}, "config.training.batch_size=0"),
        ({"optimizer.name": "adm"}, "config.optimizer.name='adm': use one of adam"),
        ({"optimizer.learning_rate": 0.0}, "config.optimizer.learning_rate=0.0"),
        ({"data.core": 50}, "config.data.core: no interaction is left"),
        ({"data.min_rating": 9.0, "data.rating_column": "rating"}, "config.data.min_rating=9.0"),
        ({"data.path": "nowhere.csv"}, "nowhere.csv"),
        ({"data.path": ""}, "config.data.path=''"),
        ({"data.item_column": "movie"}, "item column 'movie'"),
        ({"data.rating_column": "stars"}, "rating column 'stars'"),
        ({"data.split": "leave_one_out"}, "no timestamps"),
        ({"data.predefined": "nowhere"}, "config.data.predefined='nowhere'"),
        ({"data.name": "no_such_data"}, "config.data.name='no_such_data'"),
    ],
)
def test_a_bad_configuration_is_refused_before_anything_is_written(changed, fault, table, tmp_path):
    message = refused(SMALL | {"data.path": str(table)} | changed, tmp_path / "run")
    assert fault in message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("user,item,rating\nu1,1,5\nu2,2,nan\n", "line 3"),
        ("user,item,rating\nu1,1,5\nu2,,4\n", "line 3"),
        ("user,item,rating\nu1,1,5\nu2,2\n", "line 3"),
        ("user,item,rating\n", "has no interactions"),
        ("", "table.csv"),
        ("user,item,rating\nu1,1,5\nu2,2,4\n", "too few"),
    ],
    ids=[
        "NaN rating",
        "no item",
        "a field too few",
        "only a header",
        "empty",
        "two rows",
    ],
)
def test_a_bad_table_is_refused_before_anything_is_written(text, fault, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(text)
    changed = {"data.path": str(path), "data.rating_column": "rating"}
    message = refused(SMALL | changed, tmp_path / "run")
    assert fault in message
    assert str(path) in message or "config.data" in message


def test_a_split_without_test_users_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("user,item\n" + "".join(f"u{n},{n % 3}\n" for n in range(9)))
    changed = {"data.path": str(path), "data.split": "per_user"}
    assert "no user has enough interactions" in refused(SMALL | changed, tmp_path / "run")
    table = hand_made().dataset
    nothing = Interactions.from_pairs(np.zeros(0), np.zeros(0), 4, 8)
    recommender = dataclasses.replace(hand_made(), dataset=dataclasses.replace(table, test=nothing))
    with pytest.raises(InputError, match="no user has an item in the test split"):
        recommender.evaluate("test")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"config": planted()}, "config: is a Dataset; give a Config, first of all"),
        ({"workdir": planted()}, "workdir: is a Dataset; give a data set as dataset=.."),
        ({"dataset": pl.DataFrame()}, "dataset: is a DataFrame; make it a data set"),
        ({"start_from": "runs/old"}, "start_from: is a str; give a model"),
        ({"optimiser": None}, "optimiser: train has optimizer, start_from besides"),
    ],
)
def test_an_argument_in_the_place_of_another_is_refused(given, fault):
    values = {"config": Config(), "workdir": None, "dataset": None} | given
    first = [values.pop(name) for name in ("config", "workdir", "dataset")]
    with pytest.raises(InputError, match=re.escape(fault)):
        experiment._check_arguments(*first, values)


def test_a_workdir_that_cannot_be_made_is_refused(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--workdir=.*cannot be written to"):
        train(config_of(table), tmp_path / "file" / "run")
