"""What the tests of programs share: a small configuration, and how refusals look."""

import json
import pathlib
import subprocess
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
from hlr_jax import config as c

def get_config():
    return c.as_config_dict(c.Config(
        data=c.DataConfig(name="embedded"),
        model=c.ModelConfig(name="cml", dim=100),
        sampling=c.SamplingConfig(history_length=4),
        evaluation=c.EvaluationConfig(bootstrap=20),
    ))
"""
SMALL = ["--config.training.epochs=1", "--config.model.dim=8"]
PLUGIN = """
from hlr_jax.functional.losses.hinge import Hinge
from hlr_jax.registry import register

@register("steep")
class Steep(Hinge):
    steepness: float = 2.0

    def __call__(self, positive, negatives):
        return self.steepness * super().__call__(positive, negatives)
"""

Done = subprocess.CompletedProcess[str]


def read(path: pathlib.Path) -> Any:
    return json.loads(path.read_text())


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2 and one line."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
