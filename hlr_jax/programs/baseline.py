r"""Tune a baseline on validation and measure it, on a model's data and by its metrics.

  hlr-jax baseline --name=ease --config=embedded/hlr --workdir=runs/ease
  hlr-jax baseline --name=ials --config=tuned/ml_1m/cml --workdir=runs/ials \
    --trials=20 --config.data.predefined=ml-1m-hlr
  hlr-jax baseline --name=item_knn --config=embedded/hlr --workdir=runs/knn \
    --set=weighting=cosine --set=neighbours=50   (this one setting, without tuning)

A baseline uses only the sections data and evaluation of the configuration, and the seed.
`hlr-jax fields ease` explains the hyperparameters of EASE, and so on. results.json in the working
directory receives the hyperparameters, all trials and the metrics.
"""

from absl import flags

from hlr_jax import cli, config

# Those of hlr_jax.baselines, which --help need not wait for; a test compares them.
_NAMES = ["most_popular", "ease", "ials", "bpr", "item_knn", "slim", "rp3beta", "ials_scaled"]

_NAME = flags.DEFINE_enum("name", None, _NAMES, "The baseline.", required=True)
_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for results.json.", required=True)
_TRIALS = flags.DEFINE_integer(
    "trials", 20, "How many settings to try on validation.", lower_bound=1
)
_SELECT = flags.DEFINE_string(
    "select", "ndcg@10", "Metric on validation that selects the best setting."
)
_SET = flags.DEFINE_multi_string(
    "set",
    [],
    "A hyperparameter, name=value. Then nothing is tuned, and the others keep their defaults.",
)
_REFIT = flags.DEFINE_bool(
    "refit",
    False,
    "Fit on training and validation before the test, as config.training.refit does for models.",
)
_ALL_METRICS = cli.define_all_metrics()


def main() -> None:
    """Tune, evaluate, print the metrics."""
    from hlr_jax import baselines

    results = baselines.tune_and_evaluate(
        _NAME.value,
        config.from_config_dict(_CONFIG.value),
        _WORKDIR.value,
        baselines.Tuning(_TRIALS.value, _SELECT.value, baselines.parse(_NAME.value, _SET.value)),
        _REFIT.value,
    )
    chosen = [f"{name}={value}" for name, value in results["hyperparameters"].items()]
    cli.say(" ".join([_NAME.value, *chosen]))
    columns = {name: results[name] for name in ("test", "valid") if results[name]}
    if columns:
        cli.say(f"\n{cli.measured(columns, _ALL_METRICS.value)}\n")
    cli.say(f"written to {_WORKDIR.value}/results.json")
