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

ROOT = pathlib.Path(__file__).parent.parent
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


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of the programs: no data but the embedded, a cache of their own, one device."""
    folder = tmp_path_factory.mktemp("environment")
    changes = {"HLR_JAX_DATA": folder / "data", "HLR_JAX_CACHE": folder / "cache"}
    changes |= {"JAX_COMPILATION_CACHE_DIR": folder / "compiled", "XLA_FLAGS": ""}
    return os.environ | {name: str(value) for name, value in changes.items()}


@pytest.fixture(scope="module")
def launch(environment):
    def run(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, f"launch/{program}.py", *flags]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("configs") / "small.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def trained(launch, config_file, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "small"
    done = launch("train", f"--config={config_file}", f"--workdir={workdir}", *SMALL)
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


def test_the_same_command_again_changes_nothing(trained, launch, config_file):
    names = ("results.json", "metrics.jsonl", "config.json")
    before = {name: (trained / name).read_text() for name in names}
    done = launch("train", f"--config={config_file}", f"--workdir={trained}", *SMALL)
    assert done.returncode == 0, done.stderr
    assert {name: (trained / name).read_text() for name in names} == before


def test_another_configuration_is_refused(trained, launch, config_file):
    flags = [f"--config={config_file}", f"--workdir={trained}", *SMALL]
    done = launch("train", *flags, "--config.loss.margin=0.7")
    assert_refused(done, f"--workdir={trained}", "config.loss.margin=0.5, not 0.7")


@pytest.mark.parametrize("program", ["train", "evaluate", "recommend", "sweep", "baseline"])
def test_help(program, launch):
    done = launch(program, "--help")
    assert done.returncode == 0
    assert f"python launch/{program}.py" in done.stdout
    assert "--workdir" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--config.model.dimm=3"], ["--config.model.dimm", "did you mean dim?"]),
        (["--config.model.xyz=3"], ["--config.model.xyz: there is no such field"]),
        (["--config.modl.dim=3"], ["--config.modl.dim", "did you mean model?"]),
        (["--config.model.dim=wide"], ["--config.model.dim=wide"]),
        (["--config.model.name=mf"], ["config.model.name='mf'", "use one of"]),
        (["--config.data.predefined=nowhere"], ["config.data.predefined='nowhere'"]),
        (["--confg.model.dim=3"], ["confg"]),
        (["stray"], ["'stray': not a flag"]),
    ],
)
def test_bad_flags_are_refused_in_one_line(flags, parts, launch, config_file, tmp_path):
    workdir = tmp_path / "run"
    done = launch("train", f"--config={config_file}", f"--workdir={workdir}", *flags)
    assert_refused(done, *parts)
    assert not workdir.exists()


def test_missing_flags_and_files_are_refused_in_one_line(launch, tmp_path):
    assert_refused(launch("train"), "--config")
    assert_refused(launch("train", "--config=nowhere.py", f"--workdir={tmp_path}"), "nowhere.py")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return 1 / 0\n")
    assert_refused(
        launch("train", f"--config={broken}", f"--workdir={tmp_path}"), "ZeroDivisionError"
    )


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
    output = tmp_path / "test.json"
    done = launch("evaluate", f"--workdir={trained}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    results = read(trained / "results.json")["test"]
    assert read(output) == results
    assert f"{results['ndcg@10']:.4f}" in done.stdout


def test_evaluate_takes_other_settings(trained, launch, tmp_path):
    output = tmp_path / "valid.json"
    flags = ["--split=valid", "--config.evaluation.cutoffs=(5,20)", f"--output={output}"]
    done = launch("evaluate", f"--workdir={trained}", *flags)
    assert done.returncode == 0, done.stderr
    assert {"ndcg@5", "ndcg@20"} <= read(output).keys()
    assert "ndcg@10" not in read(output)
    # The run itself stays as it was.
    assert read(trained / "config.json")["evaluation"]["cutoffs"] == [10]


def test_evaluate_takes_the_chosen_model_for_validation_and_the_refitted_one_for_test(
    launch, config_file, tmp_path
):
    flags = [f"--config={config_file}", *SMALL, "--config.training.refit=True"]
    done = launch("train", f"--workdir={tmp_path / 'run'}", *flags)
    assert done.returncode == 0, done.stderr
    results = read(tmp_path / "run" / "results.json")
    del results["valid"]["loss"]
    for split in ("valid", "test"):
        output = tmp_path / f"{split}.json"
        flags = [f"--workdir={tmp_path / 'run'}", f"--split={split}", f"--output={output}"]
        done = launch("evaluate", *flags)
        assert done.returncode == 0, done.stderr
        assert read(output) == results[split]


def test_evaluate_refuses_bad_input(trained, launch, tmp_path):
    assert_refused(launch("evaluate", f"--workdir={tmp_path}"), "config.json: not found")
    flags = [f"--workdir={trained}", "--config.evaluation.cutoffs=(0,)"]
    assert_refused(launch("evaluate", *flags), "config.evaluation.cutoffs")


# --- recommend -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "reader"),
    [(".csv", pl.read_csv), (".parquet", pl.read_parquet), (".jsonl", pl.read_ndjson)],
)
def test_recommend_writes_tables(suffix, reader, trained, launch, tmp_path):
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
    assert config["training"]["select"] == "recall@5"
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
