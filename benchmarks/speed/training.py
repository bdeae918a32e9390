"""Training speed, sampling included, compared with PyTorch in the same run.

Each model is trained by this library, by a plain PyTorch version of the same equations in every
form there is (eager, compiled, and on a GPU as CUDA graphs; the fastest counts), and, where a
checkout of the published PyTorch port is named, by that. They take turns, each program of PyTorch
in a process of its own; before that, losses of the same batch must agree. A form that is not
compiled within a minute is left out. This library is measured with Adam on all rows, as PyTorch's
is, and with sparse updates:

  python -m benchmarks.speed.training --models=hlr,hlrpp --reference_dir=HLRM

The shapes are those of ML-1M with the published HLR settings; the interactions are made up unless
--predefined names a folder with train, valid and test files. The port runs its own settings.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import app, flags

from benchmarks import output, peaks, quick, report, shapes, timing
from benchmarks.peers import contest, forms
from benchmarks.speed import against_pytorch
from benchmarks.speed.trainers import LibraryTrainer, config_of
from hlr_jax.config import DataConfig
from hlr_jax.data import Interactions, loading

_MODELS = flags.DEFINE_list("models", list(shapes.MODELS), "Models to train.")
_USERS = flags.DEFINE_integer("users", shapes.DATASETS["ml-1m"][0], "Made-up users.")
_ITEMS = flags.DEFINE_integer("items", shapes.DATASETS["ml-1m"][1], "Made-up items.")
_DRAWS = flags.DEFINE_integer("draws", shapes.DATASETS["ml-1m"][2], "Made-up draws of a pair.")
_PREDEFINED = flags.DEFINE_string("predefined", None, "Real data: config.data.predefined.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1000, "B, positives per step.", lower_bound=1)
_DIM = flags.DEFINE_integer("dim", 100, "d, embedding size.", lower_bound=1)
_SLOTS = flags.DEFINE_integer("slots", 20, "M, memory slots.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("history_length", 50, "P, history items.", lower_bound=1)
_NEGATIVES = flags.DEFINE_integer("negatives", 1, "K, negatives per positive.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed calls of each trainer.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 0, "Steps per timed call; 0 takes about a second.")
_REFERENCE = flags.DEFINE_string("reference_dir", None, "Checkout of the published PyTorch port.")
_REFERENCE_BATCH = flags.DEFINE_integer("reference_batch_size", 5000, "The port's own default.")

OURS, SPARSE, PORT = "hlr_jax", "hlr_jax, sparse updates", "published port"


def interactions() -> Interactions:
    """Load or make up the training interactions that the flags ask for."""
    if _PREDEFINED.value:
        return loading.load(DataConfig(predefined=_PREDEFINED.value)).train
    return shapes.made_up(_USERS.value, _ITEMS.value, _DRAWS.value)


def published(model: str, data: Interactions) -> dict[str, Callable[[], Any]]:
    """List what builds the published port, where a checkout is named that has this model."""
    # Only now: `--help` need not wait for PyTorch.
    from benchmarks.peers.published_port import TYPES, published_trainer

    if not _REFERENCE.value or model not in TYPES:
        return {}
    chosen = _REFERENCE.value, model, data, _REFERENCE_BATCH.value
    return {PORT: functools.partial(published_trainer, jax.default_backend(), *chosen)}


def measure(shape: shapes.Shape, data: Interactions, peak: float) -> dict[str, Any]:
    """Measure triplets per second of each trainer, and how ours compare."""
    ours = {
        OURS: LibraryTrainer(config_of(shape), data),
        SPARSE: LibraryTrainer(config_of(shape, update="sparse"), data),
    }
    of_forms = forms.offered(jax.default_backend())
    builds = against_pytorch.trainers(shape, data, ours[OURS].params(), of_forms)
    batch, loss = ours[OURS].triplets_and_loss()
    first = functools.partial(against_pytorch.check_loss, tuple(batch), loss)
    with (
        contest.hold(builds, first) as plain,
        contest.hold(published(shape.model, data), lambda port: port.call("run", 1)) as port,
    ):
        runs = {name: trainer.run for name, trainer in ours.items()}
        for name, peer in (plain.ready | port.ready).items():
            runs[name] = functools.partial(peer.call, "run")
        steps = {name: _steps(run) for name, run in runs.items()}
        calls = {name: functools.partial(run, steps[name]) for name, run in runs.items()}
        times = timing.alternate(calls, _ROUNDS.value)

    per_step = dict.fromkeys(runs, shape.batch_size * shape.negatives)
    per_step[PORT] = _REFERENCE_BATCH.value
    rates = {name: timing.rates(per_step[name] * steps[name], times[name]) for name in runs}
    best = plain.best(rates)
    triplets = rates[OURS]["median"]
    gflops = shapes.useful_flops(shape) * triplets / per_step[OURS] / 1e9
    return {
        "model": shape.model,
        "triplets_per_second": rates,
        "steps_per_call": steps,
        "seconds": times,
        "peers": plain.rows | port.rows,
        "best_pytorch": best,
        "ratio": {name: triplets / rates[name]["median"] for name in (best, PORT) if name in rates},
        "useful_gflops": gflops,
        "share_of_matmul_peak": gflops / peak,
    }


def _steps(run: Callable[[int], None]) -> int:
    return _STEPS.value or timing.steps_that_take(1.0, run)


def as_text(results: list[Mapping[str, Any]]) -> str:
    """Lay out triplets per second, median and quartiles, and the ratios of the medians."""
    rows = []
    for result in results:
        for name, rate in result["triplets_per_second"].items():
            ratio = result["ratio"].get(name)
            seconds = result["peers"].get(name, {}).get("compile_seconds")
            useful = [f"{result['useful_gflops']:.1f}", f"{result['share_of_matmul_peak']:.0%}"]
            rows.append(
                [result["model"], name, timing.with_quartiles(rate)]
                + [f"{ratio:.2f}" if ratio else "", f"{seconds:.0f}" if seconds else ""]
                + (useful if name == OURS else ["", ""])
            )
        for name, row in result["peers"].items():
            if "left_out" in row:
                rows.append([result["model"], name, row["left_out"], "", "", "", ""])
    head = ["model", "by", "triplets/s (quartiles)", "ours / it", "compiled in s"]
    return report.table([*head, "GFLOP/s", "of peak"], rows, names=2)


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(models=["cml", "hlr"], users=600, items=300, draws=20_000, rounds=2, steps=3)
    quick.shrink(dim=16, history_length=10)
    if _REFERENCE.value:
        from benchmarks.peers import published_port

        try:
            published_port.load(_REFERENCE.value)
        except published_port.CheckoutError as error:
            raise SystemExit(f"error: {error}") from None
    data, best = interactions(), peaks.peaks()
    sizes = {
        "dim": _DIM.value,
        "slots": _SLOTS.value,
        "history_length": _LENGTH.value,
        "negatives": _NEGATIVES.value,
        "batch_size": _BATCH_SIZE.value,
    }
    results = []
    with timing.OtherPrograms() as others:
        for model in _MODELS.value:
            shape = shapes.Shape(model, **sizes)
            results.append(measure(shape, data, best["matmul_gflops"]))
            print(as_text(results[-1:]), flush=True)
    print(f"\nall models, {len(data):,} interactions\n{as_text(results)}")
    print(f"peaks: {best['matmul_gflops']:.0f} GFLOP/s, {best['copy_gbps']:.1f} GB/s")
    print(f"other programs used {others.cores:.1f} cores")
    output.write(
        "training.json",
        {
            "settings": sizes,
            "data": {"predefined": _PREDEFINED.value, "interactions": len(data)}
            | {"users": data.num_users, "items": data.num_items},
            "results": results,
            "cores_others_used": others.cores,
            "peaks": best,
            "device": peaks.device(),
            **report.provenance("jax", "jaxlib", "flax", "optax", "numpy", "torch"),
        },
    )


if __name__ == "__main__":
    app.run(main)
