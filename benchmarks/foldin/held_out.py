"""NDCG@10 of users or items that are folded in, beside the same trained in; and the time.

  python -m benchmarks.foldin.held_out --data=ml-1m-hlr --models=cml,items_only
  python -m benchmarks.foldin.held_out --of=items --number=200 --models=cml

Of a split that comes as files some users, or items, are left out of training; then what training
has of them is folded in, and both models are measured on their test interactions, always by the
whole catalogue. With items all of their users are fitted anew, as `fold_in` does. The time is of
all of them together, after a first call that compiles. With `--trained` both models are kept in a
folder, and taken from there if they are there already.
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
_OF = flags.DEFINE_enum("of", "users", ["users", "items"], "What to leave out.")
_NUMBER = flags.DEFINE_integer("number", 1000, "How many of them.", lower_bound=1)
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
    """Train with and without some users or items, fold these in, and compare."""
    from hlr_jax.data.loading import load

    config = config_of(model)
    data = load(config.data, progress=False)
    counts = data.test.counts if _OF.value == "users" else data.test.popularity
    order = np.random.default_rng(0).permutation(np.flatnonzero(counts))
    left_out = np.isin(np.arange(len(counts)), order[: _NUMBER.value])
    kept = {name: of(getattr(data, name), ~left_out) for name in ("train", "valid")}
    without = trained("without", config, dataclasses.replace(data, **kept))
    known = of(data.train, left_out)
    is_known = without.trained_items[known.items] | (_OF.value == "items")
    frame = {"user": data.user_ids[known.users], "item": data.item_ids[known.items]}
    frame = {name: ids[is_known] for name, ids in frame.items()}
    without.fold_in(frame)
    start = time.perf_counter()
    folded = without.fold_in(frame)
    seconds = time.perf_counter() - start
    full = trained("full", config, data)
    only = dataclasses.replace(data, test=of(data.test, left_out))
    values = {"folded_in": ndcg(folded, only), "trained_in": ndcg(full, only)}
    if _OF.value == "items":
        values |= {"folded_in, all items": ndcg(folded, data)}
        values |= {"trained_in, all items": ndcg(full, data)}
    return {
        "model": model,
        "epochs": _EPOCHS.value,
        "ndcg@10": values,
        "ratio": values["folded_in"] / values["trained_in"],
        f"milliseconds_per_{_OF.value[:-1]}": 1e3 * seconds / _NUMBER.value,
    }


def of(part: Any, chosen: np.ndarray) -> Any:
    """Keep the interactions of some users, or of some items."""
    if _OF.value == "users":
        return part.of_users(chosen)
    is_kept = chosen[part.items]
    pairs = part.users[is_kept], part.items[is_kept]
    return type(part).from_pairs(*pairs, part.num_users, part.num_items)


def trained(part: str, config: Any, data: Any) -> Any:
    """Train a model, or load the one that `--trained` has of this part."""
    import hlr_jax

    if not _TRAINED.value:
        return hlr_jax.train(config, None, data)
    part = part if part == "full" else f"{part}_{_NUMBER.value}_{_OF.value}"
    name = f"{config.model.name}_{config.model.dim}_{_EPOCHS.value}_{part}.safetensors"
    path = pathlib.Path(_TRAINED.value) / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        hlr_jax.train(config, None, data).save(path)
    return hlr_jax.load(path)


def ndcg(model: Any, data: Any) -> float:
    """Measure lists without what users have in training and validation."""
    evaluation = {"cutoffs": (10,), "bootstrap": 0}
    measured = dataclasses.replace(model, dataset=data).with_evaluation(**evaluation)
    return float(measured.evaluate("test")["ndcg@10"])


def main(argv: list[str]) -> None:
    """Measure each model, print and write."""
    output.check(argv)
    for model in _MODELS.value:
        found = measured(model)
        print(found, flush=True)
        sizes = {"data": _DATA.value, _OF.value: _NUMBER.value, "dim": _DIM.value}
        name = model if _OF.value == "users" else f"{model}_items"
        output.write(f"foldin/{name}.json", {**report.provenance("jax"), **sizes, **found})


if __name__ == "__main__":
    app.run(main)
