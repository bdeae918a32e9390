"""The programs under `launch/`, run as people run them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import polars as pl
import pytest

from hlr_jax import baselines, cli
from hlr_jax.config import files

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


@pytest.fixture(scope="module")
def environment(tmp_path_factory, pytestconfig):
    """Of the programs: no data but the embedded, a cache of their own, one device."""
    folder = tmp_path_factory.mktemp("environment")
    changes = {"HLR_JAX_DATA": folder / "data", "HLR_JAX_CACHE": folder / "cache"}
    # Programs compiled in an earlier run of the tests are found again.
    changes |= {"JAX_COMPILATION_CACHE_DIR": pytestconfig.cache.mkdir("jax"), "XLA_FLAGS": ""}
    changes |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    return os.environ | {name: str(value) for name, value in changes.items()}


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("configs") / "small.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def train_flags(config_file) -> list[str]:
    return [f"--config={config_file}", *SMALL, "--config.training.refit=True"]


@pytest.fixture(scope="module")
def trained(program, train_flags, tmp_path_factory) -> pathlib.Path:
    """A small run, with a refit."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    done = program("train", *train_flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "ndcg@10" in done.stdout
    assert f"written to {workdir}/results.json" in done.stdout
    return workdir


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


# --- train ---------------------------------------------------------------------------------------


def test_a_run_writes_its_files(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoints",
        "config.json",
        "dataset.json",
        "metrics.jsonl",
        "refit",
        "results.json",
    ]
    results = read(trained / "results.json")
    assert list(results) == ["model", "dataset", "split_sizes", "train", "valid", "test"]
    assert (results["model"], results["dataset"]) == ("cml", "embedded")
    assert results["split_sizes"] == {"train": 50983, "valid": 5665, "test": 14162}
    assert {"seconds", "epochs", "triplets_per_second"} <= results["train"].keys()
    assert results["train"]["epochs"] == 1
    for split in ("valid", "test"):
        assert 0 < results[split]["ndcg@10"] < 1
        assert results[split]["intervals"].keys() >= {"ndcg@10"}
    (record,) = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert record.keys() == {"epoch", "step", "train_loss", "valid_loss", "seconds"}
    assert record["valid_loss"] == pytest.approx(results["valid"]["loss"], rel=1e-5)
    config = read(trained / "config.json")
    assert (config["model"]["dim"], config["training"]["epochs"]) == (8, 1)
    assert config["sampling"]["history_length"] == 4
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best", "latest"}


def test_only_the_same_command_goes_on_and_changes_nothing(trained, launch, train_flags):
    names = ("results.json", "metrics.jsonl", "config.json")
    before = {name: (trained / name).read_text() for name in names}
    flags = [*train_flags, f"--workdir={trained}"]
    done = launch("train", *flags)
    assert done.returncode == 0, done.stderr
    assert {name: (trained / name).read_text() for name in names} == before

    done = launch("train", *flags, "--config.loss.margin=0.7")
    assert_refused(done, f"--workdir={trained}", "config.loss.margin=0.5, not 0.7")


@pytest.mark.parametrize("name", ["train", "evaluate", "recommend", "sweep", "baseline"])
def test_help(name, launch):
    done = launch(name, "--help")
    assert done.returncode == 0
    assert f"python launch/{name}.py" in done.stdout
    assert "--workdir" in done.stdout
    assert "--import" in done.stdout
    assert "Traceback" not in done.stderr
    reads_files = name in ("train", "sweep", "baseline")
    assert ("--config:" in done.stdout) == reads_files or name == "evaluate"
    assert ("\nConfigurations:\n" in done.stdout) == reads_files


def test_help_lists_the_configurations_and_does_not_wait_for_jax(environment):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "launch/train.py", "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    # All are listed: tests/config/test_configurations.py.
    assert files.describe(pathlib.Path("configs")).splitlines()[1] in done.stdout
    assert "configs/tuned/ml_1m_cml.py" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "ml_collections" in imported
    assert not imported & {"jax", "polars"}


def test_bad_flags_are_refused_in_one_line(launch, config_file, tmp_path):
    workdir = tmp_path / "run"
    for flag, parts in {
        "--config.model.dimm=3": ["--config.model.dimm", "did you mean dim?"],
        "--config.model.xyz=3": ["--config.model.xyz: there is no such field"],
        "--config.modl.dim=3": ["--config.modl.dim", "did you mean model?"],
        "--config.model.dim=wide": ["--config.model.dim=wide"],
        "--config.model.name=mf": ["config.model.name='mf'", "use one of"],
        "--config.geometry.name=cube": ["config.geometry.name='cube'", "use one of ball"],
        "--config.data.predefined=nowhere": ["config.data.predefined='nowhere'"],
        "--confg.model.dim=3": ["confg"],
        "stray": ["'stray': not a flag"],
        # Old names.
        "--config.loss.balance=0.3": [
            "--config.loss.balance: renamed, use config.loss.user_weight_exponent"
        ],
        "--config.sampling.negatives=4": ["use config.sampling.num_negatives=4"],
        "--config.loss.name=closest": ["use config.loss.name='hardest'"],
    }.items():
        done = launch("train", f"--config={config_file}", f"--workdir={workdir}", flag)
        assert_refused(done, *parts)
        assert not workdir.exists()


def test_missing_flags_and_files_are_refused_in_one_line(launch, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    assert_refused(launch("train"), "--config")
    assert_refused(launch("train", "--config=nowhere.py", workdir), "nowhere.py")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return 1 / 0\n")
    others = {"train": [], "sweep": ["--vary=loss.margin=0:1"], "baseline": ["--name=ease"]}
    for name, more in others.items():
        done = launch(name, f"--config={broken}", workdir, *more)
        assert_refused(done, f"--config={broken}: line 2: ZeroDivisionError: division by zero")
    assert not (tmp_path / "run").exists()


def test_configurations_that_there_are_not_are_refused_with_those_there_are(launch, tmp_path):
    workdir = tmp_path / "run"
    for path, part in {
        "configs/embedded.py": "use configs/embedded.py:NAME with one of cml, lrml, hlr, ",
        "configs/embedded.py:nothing": "there is no 'nothing'; use configs/embedded.py:NAME with",
        "configs/ml_1m/hlr.py": "did you mean configs/published.py:ml_1m/hlr or configs/tuned/ml",
    }.items():
        done = launch("train", f"--config={path}", f"--workdir={workdir}")
        assert_refused(done, f"--config={path}: ", part)
    assert_refused(
        launch("demo", "--hlr=configs/embedded.py:hl"), "--config=configs/embedded.py:hl:"
    )
    assert not workdir.exists()


# --- plugins -------------------------------------------------------------------------------------


def test_a_module_that_is_imported_is_found_again_by_every_program(
    program, config_file, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "steep_losses.py").write_text(PLUGIN)
    path = {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    workdir = folder / "run"
    flags = [f"--config={config_file}", *SMALL, f"--workdir={workdir}", "--config.loss.name=steep"]
    # The flag of an option may stand before that of its module.
    flags += ["--config.loss.steepness=3.0", "--import=steep_losses"]
    done = program("train", *flags, **path)
    assert done.returncode == 0, done.stderr
    config = read(workdir / "config.json")
    assert config["imports"] == ["steep_losses"]
    assert (config["loss"]["name"], config["loss"]["steepness"]) == ("steep", 3.0)

    output = folder / "test.json"
    done = program("evaluate", f"--workdir={workdir}", f"--output={output}", **path)
    assert done.returncode == 0, done.stderr
    assert read(output) == read(workdir / "results.json")["test"]
    done = program("recommend", f"--workdir={workdir}", "--users=3", "--k=2", **path)
    assert done.returncode == 0, done.stderr
    # Without its folder on the path.
    for name, *more in (("evaluate",), ("recommend", "--users=3")):
        done = program(name, f"--workdir={workdir}", *more)
        assert_refused(done, "--import=steep_losses: there is no module 'steep_losses'; install")


def test_modules_that_cannot_be_used_are_refused_in_one_line(
    program, launch, config_file, tmp_path
):
    workdir = tmp_path / "run"
    flags = [f"--config={config_file}", f"--workdir={workdir}"]
    missing = "--import=not_there: there is no module 'not_there'; install its package, or set PYTH"
    assert_refused(launch("train", "--import=json,not_there", *flags), missing)
    assert_refused(launch("baseline", "--name=ease", *flags, "--import", "not_there"), missing)
    vary = ["--trials=1", "--vary=loss.margin=0:1"]
    assert_refused(launch("sweep", *flags, *vary, "--import=not_there"), missing)
    assert_refused(launch("evaluate", flags[1], "--import=not_there"), missing)
    assert_refused(launch("recommend", flags[1], "--users=1", "--import=not_there"), missing)
    (tmp_path / "clashing.py").write_text(PLUGIN.replace("steep", "hinge", 1))
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = program("train", *flags, "--import=clashing", **path)
    assert_refused(done, "--import=clashing: clashing.Steep: a loss named 'hinge' is registered")
    assert not workdir.exists()


# --- interrupting --------------------------------------------------------------------------------


def test_an_interrupted_run_says_so_and_goes_on(launch, environment, config_file, tmp_path):
    workdir = tmp_path / "run"
    flags = [f"--config={config_file}", f"--workdir={workdir}", *SMALL[1:]]
    command = [sys.executable, "launch/train.py", *flags, "--config.training.patience=0"]
    process = subprocess.Popen(
        [*command, "--config.training.epochs=100000"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (workdir / "metrics.jsonl").exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == (
        "error: interrupted; the same command goes on from the last checkpoint"
    )
    assert len(list((workdir / "checkpoints" / "latest").iterdir())) == 1
    epochs = len((workdir / "metrics.jsonl").read_text().splitlines())

    done = subprocess.run(
        [*command, f"--config.training.epochs={epochs + 1}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, len(records) + 1))
    assert len(records) >= epochs + 1


# --- evaluate ------------------------------------------------------------------------------------


def test_evaluate_repeats_the_measures_of_training(trained, launch, tmp_path):
    """Of the chosen model on validation, and of the refitted one on test."""
    results = read(trained / "results.json")
    del results["valid"]["loss"]
    for split in ("valid", "test"):
        output = tmp_path / f"{split}.json"
        done = launch("evaluate", f"--workdir={trained}", f"--split={split}", f"--output={output}")
        assert done.returncode == 0, done.stderr
        assert read(output) == results[split]
        assert f"{results[split]['ndcg@10']:.4f}" in done.stdout


def test_evaluate_takes_other_settings(trained, launch, tmp_path):
    output = tmp_path / "valid.json"
    flags = ["--split=valid", "--config.evaluation.cutoffs=(5,20)", f"--output={output}"]
    done = launch("evaluate", f"--workdir={trained}", *flags)
    assert done.returncode == 0, done.stderr
    assert {"ndcg@5", "ndcg@20"} <= read(output).keys()
    assert "ndcg@10" not in read(output)
    # The run itself stays as it was.
    assert read(trained / "config.json")["evaluation"]["cutoffs"] == [10]


def test_evaluate_refuses_bad_input(trained, launch, tmp_path):
    assert_refused(launch("evaluate", f"--workdir={tmp_path}"), "config.json: not found")
    flags = [f"--workdir={trained}", "--config.evaluation.cutoffs=(0,)"]
    assert_refused(launch("evaluate", *flags), "config.evaluation.cutoffs")
    old = read(trained / "config.json")
    old["loss"]["balance"] = old["loss"].pop("user_weight_exponent")
    (tmp_path / "config.json").write_text(json.dumps(old))
    renamed = "config.loss.balance: renamed, use config.loss.user_weight_exponent"
    assert_refused(launch("evaluate", f"--workdir={tmp_path}"), renamed)
    assert_refused(launch("recommend", f"--workdir={tmp_path}", "--users=1"), renamed)


# --- recommend -----------------------------------------------------------------------------------


def test_recommend_writes_tables(trained, launch, tmp_path):
    readers = {".csv": pl.read_csv, ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson}
    for suffix, reader in readers.items():
        output = tmp_path / f"top{suffix}"
        flags = [f"--workdir={trained}", "--users=7,3", "--k=4", f"--output={output}"]
        done = launch("recommend", *flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"8 recommendations written to {output}"
        table = reader(output)
        assert table.columns == ["user", "rank", "item", "title", "score"]
        assert table["user"].to_list() == [7] * 4 + [3] * 4
        assert table["rank"].to_list() == [1, 2, 3, 4] * 2
        assert table["item"].is_between(0, 799).all()


def test_recommend_prints_all_users(trained, launch):
    done = launch("recommend", f"--workdir={trained}", "--users=all", "--k=1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 1 + 1200
    assert lines[0].split() == ["user", "rank", "item", "title", "score"]


def test_recommend_refuses_bad_input(trained, launch, tmp_path):
    workdir = f"--workdir={trained}"
    assert_refused(launch("recommend", workdir, "--users=7,nobody"), "'nobody'", "embedded")
    done = launch("recommend", workdir, "--users=7", f"--output={tmp_path}/top.txt")
    assert_refused(done, "--output=", ".csv, .parquet, .jsonl")


# --- baseline ------------------------------------------------------------------------------------


def test_a_baseline_is_tuned_and_measured(launch, config_file, tmp_path):
    workdir = tmp_path / "knn"
    flags = ["--name=item_knn", f"--config={config_file}", f"--workdir={workdir}", "--trials=2"]
    done = launch("baseline", *flags)
    assert done.returncode == 0, done.stderr
    results = read(workdir / "results.json")
    assert len(results["trials"]) == 2
    assert done.stdout.startswith(f"item_knn weighting={results['hyperparameters']['weighting']} ")
    assert f"{results['test']['ndcg@10']:.4f}" in done.stdout
    assert results["test"]["intervals"].keys() >= {"ndcg@10"}


def test_bad_baselines_are_refused_in_one_line(launch, config_file, trained, tmp_path):
    flags = [f"--config={config_file}", f"--workdir={tmp_path / 'run'}"]
    assert_refused(launch("baseline", "--name=svd", *flags), *baselines.METHODS)
    assert_refused(launch("baseline", "--name=ease", "--set=k=3", *flags), "--set=k=3: ease has")
    negative = launch("baseline", "--name=ease", "--set=regularization=-1", *flags)
    assert_refused(negative, "regularization=-1.0: use a number above 0")
    assert_refused(
        launch("baseline", "--name=ease", flags[0], f"--workdir={trained}"),
        f"--workdir={trained}: holds the training run of a model",
    )
    assert not (tmp_path / "run").exists()


# --- sweep ---------------------------------------------------------------------------------------


def test_a_sweep_ends_in_a_command_that_trains_the_best(launch, config_file, tmp_path):
    workdir = tmp_path / "sweep"
    flags = [f"--config={config_file}", f"--workdir={workdir}", *SMALL, "--objective=recall@5"]
    vary = ["--vary=loss.margin=0.2:2.0", "--vary=loss.reduction=choice:sum,mean"]
    done = launch("sweep", *flags, *vary, "--trials=2")
    assert done.returncode == 0, done.stderr
    started = [line for line in done.stdout.splitlines() if line.startswith("trial ")]
    assert started[0].startswith("trial 0 complete; recall@5 ")
    assert "loss.margin=" in started[1]
    assert sorted(path.name for path in workdir.iterdir()) == [
        "best.json",
        "best.py",
        "importance.png",
        "sweep.db",
        "sweep.json",
        "sweep.lock",
        "trials.csv",
    ]
    table = pl.read_csv(workdir / "trials.csv")
    assert table["trial"].to_list() == [0, 1]

    again = launch("sweep", *flags, *vary, "--trials=2")
    assert again.returncode == 0, again.stderr
    assert pl.read_csv(workdir / "trials.csv").equals(table)

    command = done.stdout.splitlines()[-1]
    assert command == (
        f"python launch/train.py --config={workdir}/best.py --workdir={workdir}/best"
    )
    trained = launch("train", *command.split()[2:])
    assert trained.returncode == 0, trained.stderr
    found = read(workdir / "best" / "results.json")["valid"]
    config = read(workdir / "best" / "config.json")
    best = table.sort("recall@5", descending=True).row(0, named=True)
    assert config["loss"]["margin"] == best["loss.margin"]
    assert config["training"]["selection_metric"] == "recall@5"
    assert found["loss"] > 0
    (record,) = (workdir / "best" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(record)["valid_recall@5"] == best["recall@5"]


def test_sweep_refuses_bad_input(launch, config_file, tmp_path):
    workdir = tmp_path / "sweep"
    flags = [f"--config={config_file}", f"--workdir={workdir}"]
    assert_refused(launch("sweep", *flags, "--trials=1"), "--vary")
    done = launch("sweep", *flags, "--trials=1", "--vary=loss.margn=0:1")
    assert_refused(done, "--vary=loss.margn=0:1", "did you mean loss.margin?")
    assert not workdir.exists()


def test_a_sweep_names_the_packages_that_it_needs(environment, config_file, tmp_path):
    (tmp_path / "optuna.py").write_text("raise ImportError(name='optuna')")
    command = [sys.executable, "launch/sweep.py", f"--config={config_file}", "--trials=1"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}", "--vary=loss.margin=0:1"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert_refused(done, "optuna", "pip install 'hlr_jax[sweep]'")


# --- what they share -----------------------------------------------------------------------------


def test_metrics_stand_in_aligned_columns():
    columns = {
        "test": {"users": 3, "ndcg@10": 0.25, "intervals": {"ndcg@10": [0.2, 0.3]}},
        "valid": {"users": 12, "ndcg@10": 0.5, "loss": 0.1},
    }
    assert cli.metrics_table(columns).splitlines() == [
        "                            test   valid",
        "users                          3      12",
        "ndcg@10  0.2500 [0.2000, 0.3000]  0.5000",
    ]


def test_typos_of_evaluation_flags_are_refused_in_one_line(launch, trained):
    workdir = f"--workdir={trained}"
    assert_refused(
        launch("evaluate", workdir, "--config.evaluation.cutoff=5"),
        "--config.evaluation.cutoff: there is no such field; did you mean cutoffs?",
    )
    assert_refused(
        launch("evaluate", workdir, "--config.training.epochs=3"), "--config.training.epochs"
    )
    assert_refused(launch("demo", "--hlr.training.epoch=2"), "did you mean epochs?")


def test_what_cannot_be_written_is_refused_before_the_work(launch, trained):
    workdir = f"--workdir={trained}"
    missing = "there is no folder nowhere; make it first"
    assert_refused(launch("evaluate", workdir, "--output=nowhere/m.json"), missing)
    assert_refused(launch("recommend", workdir, "--users=1", "--output=nowhere/t.csv"), missing)
    assert_refused(launch("recommend", workdir, "--users="), "--users=: give user ids")
    assert_refused(launch("demo", "--user=99999"), "user '99999' is not in data set 'embedded'")
