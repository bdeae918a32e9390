"""Measure in a process of its own, whose memory and start-up time are those of the measured."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.output import ROOT


def run(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run a module of this package, and return the JSON that it prints.

    Args:
      environment: all variables; None for those of this process.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ if environment is None else environment
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)
