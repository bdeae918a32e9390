"""NDCG@10 of users who are folded in, beside that of the same users trained in; and the time.

  python -m benchmarks.foldin.held_out --data=ml-1m-hlr --models=cml,items_only

Of a split that comes as files some users are left out of training; then their training and
validation interactions are folded in, and both models are measured on their test interactions. The
time is of all of these users together, after a first call that compiles. With `--trained` both
models are kept in a folder, and taken from there if they are there already.
"""

import dataclasses
import pathlib
import time
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import output, report

_DATA = flags.DEFINE_string("data", "ml-1m-hlr", "A split under the folder of data sets.")
_MODELS = flags.DEFINE_list("models", ["cml", "hlr", "items_only"], "Models to train.")
_USERS = flags.DEFINE_integer("users", 1000, "Users to leave out.", lower_bound=1)
_DIM = flags.DEFINE_integer("dim", 200, "d, embedding size.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 12, "Of each training.", lower_bound=1)
_TRAINED = flags.DEFINE_string("trained", "", "Folder that keeps trained models.")


def config_of(model: str) -> Any:
    """Return the settings of `configs/full_catalog.py` for ML-1M, with other sizes."""
    from benchmarks.output import ROOT
    from hlr_jax import config as configs
    from hlr_jax.config import files

    values = files.read(f"{ROOT}/configs/full_catalog.py:ml_1m/{model}")
    config = configs.from_config_dict(values)
    training = dataclasses.replace(config.training, epochs=_EPOCHS.value, refit=False)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, predefined=_DATA.value),
        model=dataclasses.replace(config.model, dim=_DIM.value),
        training=training,
    )


def measured(model: str) -> dict[str, Any]:
    """Train with and without some users, fold these in, and compare."""
    from hlr_jax.data.loading import load

    config = config_of(model)
    data = load(config.data, progress=False)
    order = np.random.default_rng(0).permutation(np.flatnonzero(data.test.counts))
    left_out = np.zeros(data.num_users, bool)
    left_out[order[: _USERS.value]] = True
    kept = {name: getattr(data, name).of_users(~left_out) for name in ("train", "valid")}
    without = trained("without", config, dataclasses.replace(data, **kept))
    known = data.train.union(data.valid).of_users(left_out)
    frame = {"user": data.user_ids[known.users], "item": data.item_ids[known.items]}
    is_known = without.trained_items[known.items]
    frame = {name: ids[is_known] for name, ids in frame.items()}
    without.fold_in(frame)
    start = time.perf_counter()
    folded = without.fold_in(frame)
    seconds = time.perf_counter() - start
    full = trained("full", config, data)
    values = {"folded_in": ndcg(folded, data, left_out), "trained_in": ndcg(full, data, left_out)}
    return {
        "model": model,
        "epochs": _EPOCHS.value,
        "ndcg@10": values,
        "ratio": values["folded_in"] / values["trained_in"],
        "milliseconds_per_user": 1e3 * seconds / _USERS.value,
    }


def trained(part: str, config: Any, data: Any) -> Any:
    """Train a model, or load the one that `--trained` has of this part."""
    import hlr_jax

    if not _TRAINED.value:
        return hlr_jax.train(config, None, data)
    name = f"{config.model.name}_{config.model.dim}_{_EPOCHS.value}_{part}.safetensors"
    path = pathlib.Path(_TRAINED.value) / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        hlr_jax.train(config, None, data).save(path)
    return hlr_jax.load(path)


def ndcg(model: Any, data: Any, users: np.ndarray) -> float:
    """Measure users' lists without what they have in training and validation."""
    only = dataclasses.replace(data, test=data.test.of_users(users))
    evaluation = {"cutoffs": (10,), "bootstrap": 0}
    measured = dataclasses.replace(model, dataset=only).with_evaluation(**evaluation)
    return float(measured.evaluate("test")["ndcg@10"])


def main(argv: list[str]) -> None:
    """Measure each model, print and write."""
    output.check(argv)
    for model in _MODELS.value:
        found = measured(model)
        print(found, flush=True)
        sizes = {"data": _DATA.value, "users": _USERS.value, "dim": _DIM.value}
        output.write(f"foldin/{model}.json", {**report.provenance("jax"), **sizes, **found})


if __name__ == "__main__":
    app.run(main)
