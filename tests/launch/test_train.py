"""`launch/train.py`, plugins and interruptions, run as people run them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.launching import PLUGIN, ROOT, SMALL, assert_refused, read

from hlr_jax.config import shipped

# --- train ---------------------------------------------------------------------------------------


def test_a_run_writes_its_files(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoints",
        "config.json",
        "data",
        "dataset.json",
        "metrics.jsonl",
        "refit",
        "results.json",
    ]
    results = read(trained / "results.json")
    parts = ["model", "dataset", "split_sizes", "digests", "train", "valid", "test", "refit"]
    assert list(results) == parts
    assert (results["model"], results["dataset"]) == ("cml", "embedded")
    assert results["split_sizes"] == {"train": 50983, "valid": 5665, "test": 14162}
    assert {"seconds", "epochs", "triplets_per_second"} <= results["train"].keys()
    assert results["train"]["epochs"] == results["refit"]["epochs"] == 1
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
    # What it says before, and at the end.
    before, _, after = done.stdout.partition("  trained ")
    assert before.startswith("cml on embedded\n")
    assert "  goes on       with a run that has 1 epochs already\n" in before
    assert "  best     epoch 1, valid loss " in after
    results = read(trained / "results.json")
    assert f"ndcg@10               {results['test']['ndcg@10']:.4f} [" in after
    assert "  recall             share of a user's wanted items" in after
    assert "mrr_all_hits@10" not in after
    assert f"  hlr-jax evaluate --workdir={trained} " in after
    assert max(map(len, before.splitlines())) <= 80

    done = launch("train", *flags, "--config.loss.margin=0.7")
    assert_refused(done, f"--workdir={trained}", "config.loss.margin=0.5, not 0.7")


def test_a_line_says_what_the_relation_is(trained, launch, train_flags, tmp_path):
    done = launch("train", *train_flags, f"--workdir={tmp_path}", "--config.model.name=lrml")
    assert done.returncode == 0, done.stderr
    line = read(tmp_path / "results.json")["diagnosis"]["text"]
    assert line.startswith("relation: ")
    # This one is a constant, which a warning says, once.
    assert f"warning: {line}. The model ranks as CML" in done.stderr
    assert "constant" not in done.stdout
    done = launch("evaluate", f"--workdir={tmp_path}", "--diagnose")
    assert done.returncode == 0, done.stderr
    assert line in done.stdout.splitlines()
    # This one is CML.
    done = launch("evaluate", f"--workdir={trained}", "--diagnose")
    assert_refused(done, "config.model.name='cml'", "has no relation")


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
    assert shipped.describe() in done.stdout
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
        "configs/ml_1m/hlr.py": "there is no such file or name; did you mean ml_1m/hlr?",
        "ml_100k": "use one of ml_100k/cml, ",
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
        missing = "imports=['steep_losses']: there is no module 'steep_losses'; install its package"
        assert_refused(done, missing)


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
    (tmp_path / "a_program.py").write_text("raise SystemExit\n")
    done = program("train", *flags, "--import=a_program", **path)
    assert_refused(done, "--import=a_program: ends the program while it is imported; guard that")
    (tmp_path / "branching.py").write_text(
        PLUGIN + "\n    def __call__(self, positive, negatives):\n"
        "        return positive if self.steepness > 1 else 2 * positive\n"
    )
    done = program("train", *flags, "--import=branching", "--config.loss.name=steep", **path)
    assert_refused(done, "config.loss.name='steep': branching.Steep.__call__: options margin, ste")
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
        "error: interrupted (SIGINT); the same command goes on from the last checkpoint"
    )
    assert 1 <= len(list((workdir / "checkpoints" / "latest").iterdir())) <= 3
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
