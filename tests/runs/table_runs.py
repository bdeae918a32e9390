"""Runs on a small table of interactions, and a recommender that is made by hand."""

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from hlr_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
    build,
)
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.runs import experiment
from hlr_jax.runs.recommender import Recommender

USERS, ITEMS = 12, 20


def table_text() -> str:
    """Users like the items of their parity, with ratings and times."""
    lines = [
        f"u{user},{item + 100},{1 + (user + item) % 5},{user * 7 + item}"
        for user in range(USERS)
        for item in range(ITEMS)
        if (user + item) % 2 == 0 and (user * 3 + item) % 5
    ]
    return "\n".join(["user,item,rating,time", *lines]) + "\n"


def config_of(path: pathlib.Path, model: str = "cml", **sections: Any) -> Config:
    fields: dict[str, Any] = {
        "data": DataConfig(name="file", path=str(path), core=0, split="per_user"),
        "model": ModelConfig(model, dim=4, options={} if model == "cml" else {"slots": 3}),
        "sampling": SamplingConfig(history_length=3),
        "optimizer": OptimizerConfig(learning_rate=0.05),
        "training": TrainingConfig(epochs=3, batch_size=32),
        "evaluation": EvaluationConfig(cutoffs=(3, 5), bootstrap=10),
    }
    return Config(**(fields | sections))


def train(config: Config, workdir: pathlib.Path | None = None) -> Recommender:
    return experiment.train(config, workdir, show_progress=False)


def hand_made(**fields: Any) -> Recommender:
    """CML with users and items on a line: item n is at n / 10, all users are at 0."""
    data = {
        "train": [[1], [0], [2, 3], [4]],
        "valid": [[0], [1], [], []],
        "test": [[2], [2, 3], [0], [5]],
    }
    parts = {}
    for name, items_of in data.items():
        users = [user for user, items in enumerate(items_of) for _ in items]
        flat = [item for items in items_of for item in items]
        parts[name] = Interactions.from_pairs(np.array(users), np.array(flat), 4, 8)
    ids = {"user_ids": np.arange(4), "item_ids": np.arange(8)}
    dataset = Dataset("by hand", **parts, **ids, **fields)
    config = Config(
        model=ModelConfig("cml", dim=1), evaluation=EvaluationConfig(cutoffs=(1, 2), bootstrap=0)
    )
    items = jnp.arange(8, dtype=jnp.float32)[:, None] / 10
    params = {"user": jnp.zeros((4, 1)), "item": items, "relation": {}}
    return Recommender.of(config, dataset, build.build_model(config), params)
