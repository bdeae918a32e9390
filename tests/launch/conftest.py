"""Programs run as people run them, on a small configuration."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from support import xla_flags
from support.launching import CONFIG, ROOT, SMALL, Done


@pytest.fixture(scope="session")
def environment(tmp_path_factory, pytestconfig):
    """Of the programs: no data but the embedded, a cache of their own, one device."""
    folder = tmp_path_factory.mktemp("environment")
    changes = {"HLR_JAX_DATA": folder / "data", "HLR_JAX_CACHE": folder / "cache"}
    # Programs compiled in an earlier run of the tests are found again.
    changes |= {
        "JAX_COMPILATION_CACHE_DIR": pytestconfig.cache.mkdir("jax"),
        "XLA_FLAGS": " ".join(xla_flags.known()),
    }
    changes |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    return os.environ | {name: str(value) for name, value in changes.items()}


@pytest.fixture(scope="session")
def program(environment):
    """Runs a program as people do, in a process of its own."""

    def run(name: str, *flags: str, **changes: str) -> Done:
        command = [sys.executable, f"launch/{name}.py", *flags]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment | changes,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def launch(environment):
    """Runs a program in a fork of a process that has imported JAX."""
    server = subprocess.Popen(
        [sys.executable, pathlib.Path(__file__).with_name("fork_server.py")],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def run(name: str, *flags: str) -> Done:
        server.stdin.write(json.dumps([name, *flags]) + "\n")
        server.stdin.flush()
        return subprocess.CompletedProcess([name, *flags], *json.loads(server.stdout.readline()))

    yield run
    server.communicate(timeout=60)


@pytest.fixture(scope="session")
def config_file(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("configs") / "small.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def train_flags(config_file) -> list[str]:
    return [f"--config={config_file}", *SMALL, "--config.training.refit=True"]


@pytest.fixture(scope="session")
def trained(program, train_flags, tmp_path_factory) -> pathlib.Path:
    """A small run, with a refit."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    done = program("train", *train_flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "ndcg@10" in done.stdout
    assert f"written to {workdir}/results.json" in done.stdout
    return workdir
