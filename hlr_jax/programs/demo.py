"""Train HLR and CML on the embedded data set and show what they recommend.

  hlr-jax demo
  hlr-jax demo --user=7 --workdir=runs/demo   (to keep the runs)

The data are made up, and come with the library.
"""

import pathlib
import tempfile
import textwrap

from absl import flags

from hlr_jax import cli, config
from hlr_jax.config import DataConfig

_HLR, _CML = cli.defined(
    lambda: (
        cli.define_config("hlr", "embedded/hlr"),
        cli.define_config("cml", "embedded/cml"),
    )
)
_USER = flags.DEFINE_string("user", "12", "The user whose recommendations are shown.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the runs; by default they are deleted.")
_ALL_METRICS = cli.define_all_metrics()


def main() -> None:
    """Train both, compare them with the most popular items, recommend."""
    from hlr_jax import baselines, data
    from hlr_jax.runs.experiment import train_and_evaluate
    from hlr_jax.runs.recommender import Recommender

    data.load(DataConfig(name="embedded")).user_index(_USER.value)  # Refuse an unknown user now.
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(_WORKDIR.value or temporary)
        columns = {}
        for name, flag in (("HLR", _HLR), ("CML", _CML)):
            cli.say(f"training {name} on the embedded data set")
            settings = config.from_config_dict(flag.value)
            columns[name] = train_and_evaluate(settings, folder / name)["test"]
        hlr = Recommender.load(folder / "HLR")
    popular = baselines.MostPopular().fit(hlr.dataset.train)
    columns["most popular"] = baselines.evaluate(popular, hlr.dataset, hlr.config.evaluation)

    cli.say("\nThe data are made up. They show that things work, not which model is better.")
    cli.say(f"Test metrics of {columns['HLR']['users']} users:")
    cli.say(cli.measured(columns, _ALL_METRICS.value))
    heard = ", ".join(sorted(hlr.history(_USER.value)["title"]))
    cli.say(f"\nUser {_USER.value} listened to:")
    cli.say(textwrap.fill(heard, width=100))
    cli.say(f"\nHLR recommends to user {_USER.value}:")
    cli.say(cli.plain(hlr.recommend([_USER.value], k=10)))
