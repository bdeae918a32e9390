"""The programs under `launch/` besides training, run as people run them."""

import json
import os
import shutil
import subprocess
import sys

import polars as pl
from support.launching import ROOT, SMALL, assert_refused, read

from hlr_jax import baselines, cli

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
    done = launch("evaluate", f"--workdir={trained}", *flags, "--all_metrics", "--progress=bar")
    assert done.returncode == 0, done.stderr
    assert "mrr_all_hits@20" in done.stdout
    assert "  mrr_all_hits       1 divided by the place, added up" in done.stdout
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


# --- report --------------------------------------------------------------------------------------


def test_a_run_ends_in_a_report_on_request(trained, train_flags, launch, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    done = launch("train", *train_flags, f"--workdir={workdir}", "--report")
    assert done.returncode == 0, done.stderr
    assert f"written to {workdir}/report.html" in done.stdout
    # Genres of the songs colour the map; nobody has named them.
    assert "Techno" in (workdir / "report.html").read_text(encoding="utf-8")
    assert_refused(launch("report", f"--workdir={tmp_path / 'model'}"), "--output: name the .html")
    table = tmp_path / "genres.csv"
    for text, fault in (
        ("item,genre\n1,Folk\n1,Jazz\n", "genres.csv: item 1 has several rows"),
        ("item,genre\nx,Folk\n", "groups: none is of an item of data set 'embedded'"),
    ):
        table.write_text(text)
        assert_refused(launch("report", f"--workdir={trained}", f"--groups={table}"), fault)


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
        "trials.csv",
    ]
    table = pl.read_csv(workdir / "trials.csv")
    assert table["trial"].to_list() == [0, 1]

    again = launch("sweep", *flags, *vary, "--trials=2")
    assert again.returncode == 0, again.stderr
    assert pl.read_csv(workdir / "trials.csv").equals(table)

    command = done.stdout.splitlines()[-1]
    assert command == (f"hlr-jax train --config={workdir}/best.py --workdir={workdir}/best")
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


def test_variants_of_papers_are_shown_on_request():
    summary = {"users": 3, "ndcg@5": 0.25, "ndcg_local@5": 0.5, "median_popularity@5": 123.456}
    text = cli.measured({"test": summary})
    assert text.splitlines()[:4] == [
        "                       test",
        "users                     3",
        "ndcg@5               0.2500",
        "median_popularity@5   123.5",
    ]
    assert "ndcg_local@5" not in text
    assert "--all_metrics shows ndcg_local too" in text
    text = cli.measured({"test": summary}, all_metrics=True)
    assert "ndcg_local@5         0.5000" in text
    assert "best order (HLR)" in text


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
    assert_refused(launch("recommend", workdir, "--users="), "give either --users")
    assert_refused(launch("demo", "--user=99999"), "user '99999' is not in data set 'embedded'")
