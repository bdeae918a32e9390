"""Export a trained model for other programs.

  hlr-jax export --workdir=runs/hlr --output=exported/hlr

writes ids and what users have as Parquet, vectors as safetensors, the ranking function as
StableHLO for any number of users and, in Euclidean or spherical geometry, an index of hnswlib,
whose recall is reported. README.txt in the folder says what each file is.
Needs pip install 'hlr_jax[export]'.
"""

from absl import flags

from hlr_jax import cli

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder that hlr-jax train wrote, or a saved model.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "New folder to write to.", required=True)
_K = flags.DEFINE_integer("k", 100, "Items that the ranking function returns.", lower_bound=1)


def main() -> None:
    """Export and list what was written."""
    from hlr_jax.exporting import export
    from hlr_jax.runs.recommender import Recommender

    exported = export(Recommender.load(_WORKDIR.value), _OUTPUT.value, _K.value)
    for name, text in exported.files.items():
        cli.say(f"{name:<22}{text}")
    cli.say(f"index: {exported.about['index']}")
    cli.say(f"written to {exported.folder}")
