"""Training speed, sampling included, compared with PyTorch in the same run.

Each model is trained by this library, by a plain PyTorch version of the same equations (eager and
compiled by torch.compile; the faster one counts), and, where a checkout of the published PyTorch
port is named, by that. They take turns; before that, losses of the same batch must agree. This
library is measured with Adam on all rows, as PyTorch's is, and with sparse updates:

  python -m benchmarks.speed.training --models=hlr,hlrpp --reference_dir=HLRM

The shapes are those of ML-1M with the published HLR settings; the interactions are made up unless
--predefined names a folder with train, valid and test files. The port runs its own settings.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags

from benchmarks import output, peaks, quick, report, shapes, timing
from benchmarks.speed.trainers import LEARNING_RATE, MARGIN, LibraryTrainer, config_of
from hlr_jax.config import DataConfig
from hlr_jax.data import Interactions, datasets

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
EAGER, COMPILED = "PyTorch, eager", "PyTorch, compiled"


def interactions() -> Interactions:
    """Load or make up the training interactions that the flags ask for."""
    if _PREDEFINED.value:
        return datasets.load(DataConfig(predefined=_PREDEFINED.value)).train
    return shapes.made_up(_USERS.value, _ITEMS.value, _DRAWS.value)


def make_trainers(shape: shapes.Shape, data: Interactions) -> dict[str, Any]:
    """Build trainers by name, each with `run(steps)`, that start from the same parameters.

    Raises:
      RuntimeError: their losses differ.
    """
    # Only now: `--help` need not wait for PyTorch.
    import torch

    from benchmarks.peers import torch_device
    from benchmarks.peers.plain_pytorch import PlainModel, PlainTrainer
    from benchmarks.peers.published_port import TYPES, PublishedTrainer

    torch_device.allow_tf32()
    torch.compiler.reset()  # What was compiled for the model before does not count against this.
    ours = LibraryTrainer(config_of(shape), data)
    sparse = LibraryTrainer(config_of(shape, update="sparse"), data)
    trainers: dict[str, Any] = {OURS: ours, SPARSE: sparse}
    for name, compiled in ((EAGER, False), (COMPILED, True)):
        trainers[name] = PlainTrainer(
            PlainModel(shape.model, ours.params(), MARGIN),
            data,
            shape.batch_size,
            shape.negatives,
            shape.history_length if shape.has_history else 0,
            LEARNING_RATE,
            compiled,
        )
        check_losses(shape.model, ours, trainers[name])
    if _REFERENCE.value and shape.model in TYPES:
        trainers[PORT] = PublishedTrainer(
            _REFERENCE.value, shape.model, data, _REFERENCE_BATCH.value
        )
    return trainers


def check_losses(model: str, ours: LibraryTrainer, peer: Any) -> None:
    """Raise RuntimeError where losses of the same batch differ by more than rounding explains."""
    from benchmarks.peers import torch_device
    from benchmarks.peers.torch_sampling import Batch

    batch, loss = ours.triplets_and_loss()
    users, items, history, mask = (None if x is None else torch_device.tensor(x) for x in batch)
    history = None if history is None else history.long()
    peers_loss = peer.loss(Batch(users.long(), items.long(), history, mask)).item()
    # TF32, which both may use on a GPU, keeps 10 bits.
    tolerance = 1e-4 if torch_device.device().type == "cpu" else 1e-3
    if abs(loss - peers_loss) > tolerance * abs(loss):
        raise RuntimeError(f"{model}: loss {loss}, in PyTorch {peers_loss}")


def measure(shape: shapes.Shape, data: Interactions, peak: float) -> dict[str, Any]:
    """Measure triplets per second of each trainer, and how ours compare."""
    trainers = make_trainers(shape, data)
    steps = {name: _steps(trainer.run) for name, trainer in trainers.items()}
    calls = {
        name: functools.partial(trainer.run, steps[name]) for name, trainer in trainers.items()
    }
    times = timing.alternate(calls, _ROUNDS.value)

    per_step = dict.fromkeys(trainers, shape.batch_size * shape.negatives)
    per_step[PORT] = _REFERENCE_BATCH.value
    rates = {name: timing.rates(per_step[name] * steps[name], times[name]) for name in trainers}
    best = max((EAGER, COMPILED), key=lambda name: rates[name]["median"])
    triplets = rates[OURS]["median"]
    gflops = shapes.useful_flops(shape) * triplets / per_step[OURS] / 1e9
    return {
        "model": shape.model,
        "triplets_per_second": rates,
        "steps_per_call": steps,
        "seconds": times,
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
            useful = [f"{result['useful_gflops']:.1f}", f"{result['share_of_matmul_peak']:.0%}"]
            rows.append(
                [result["model"], name, timing.with_quartiles(rate)]
                + [f"{ratio:.2f}" if ratio else ""]
                + (useful if name == OURS else ["", ""])
            )
    head = ["model", "by", "triplets/s (quartiles)", "ours / it", "GFLOP/s", "of peak"]
    return report.table(head, rows, names=2)


def main(argv: list[str]) -> None:
    output.check(argv)
    quick.shrink(models=["cml", "hlr"], users=600, items=300, draws=20_000, rounds=2, steps=3)
    quick.shrink(dim=16, history_length=10)
    if _REFERENCE.value:
        from benchmarks.peers import published_port, torch_device

        if torch_device.device().type != "cpu":
            raise SystemExit("error: --reference_dir: the port runs on CPUs; set JAX_PLATFORMS=cpu")

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
    for model in _MODELS.value:
        shape = shapes.Shape(model, **sizes)
        results.append(measure(shape, data, best["matmul_gflops"]))
        print(as_text(results[-1:]), flush=True)
    print(f"\nall models, {len(data):,} interactions\n{as_text(results)}")
    print(f"peaks: {best['matmul_gflops']:.0f} GFLOP/s, {best['copy_gbps']:.1f} GB/s")
    output.write(
        "training.json",
        {
            "settings": sizes,
            "data": {"predefined": _PREDEFINED.value, "interactions": len(data)}
            | {"users": data.num_users, "items": data.num_items},
            "results": results,
            "peaks": best,
            "device": peaks.device(),
            **report.provenance("jax", "jaxlib", "flax", "optax", "numpy", "torch"),
        },
    )


if __name__ == "__main__":
    app.run(main)
