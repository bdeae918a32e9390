"""Sweeps: what they vary, what becomes of trials, and that they can be stopped and resumed."""

import dataclasses
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
import sqlalchemy
from small_runs import planted_of

from hlr_jax import config as configs
from hlr_jax import files
from hlr_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from hlr_jax.data.datasets import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.runs import experiment
from hlr_jax.tuning import search_space, sweep
from hlr_jax.tuning.search_space import Choice, Range

USERS, ITEMS = 18, 24


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """What a killed process wrote is there without, too."""

    def forget(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", forget)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", forget)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """A user likes the 8 items of its group."""
    return planted_of(USERS, ITEMS, (5, 7, 8))


def config_of(epochs: int = 2, **fields: Any) -> Config:
    return Config(
        data=DataConfig(name="embedded"),
        model=ModelConfig(name="cml", dim=4),
        optimizer=OptimizerConfig(name="sgd"),
        training=TrainingConfig(epochs=epochs, batch_size=32, patience=0),
        **fields,
    )


MARGIN = "loss.margin=0.2:2.0"
Scripted = Callable[[Config], Sequence[float]]


@pytest.fixture
def scripted(monkeypatch, dataset) -> Callable[..., Any]:
    """Sweeps whose trials report given values instead of training."""

    def search(workdir, values_of: Scripted, vary=(MARGIN,), **arguments: Any) -> Any:
        def train(config, workdir, dataset, show_progress, on_epoch):
            for epoch, value in enumerate(values_of(config), start=1):
                on_epoch({"epoch": epoch, "valid_loss": -value, "valid_ndcg@10": value})

        arguments = {"dataset": dataset, "show_progress": False, "config": config_of()} | arguments
        with monkeypatch.context() as patched:
            patched.setattr(experiment, "train", train)
            return sweep.search(arguments.pop("config"), workdir, vary, **arguments)

    return search


# --- what is varied ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "field", "values"),
    [
        (MARGIN, "loss.margin", Range(0.2, 2.0)),
        ("loss.margin=1:2", "loss.margin", Range(1.0, 2.0)),
        ("loss.margin=int:1:3", "loss.margin", Range(1, 3)),
        (
            "optimizer.learning_rate=log:1e-4:3e-3",
            "optimizer.learning_rate",
            Range(1e-4, 3e-3, True),
        ),
        ("sampling.negatives=int:1:20", "sampling.negatives", Range(1, 20)),
        ("sampling.negatives=1:20", "sampling.negatives", Range(1, 20)),
        ("model.dim=log:8:512", "model.dim", Range(8, 512, True)),
        ("model.dim=choice:32,64,100", "model.dim", Choice((32, 64, 100))),
        ("loss.rank_weight=choice:true,False", "loss.rank_weight", Choice((True, False))),
        ("optimizer.name=choice:adam,sgd", "optimizer.name", Choice(("adam", "sgd"))),
        ("data.split=choice:,random", "data.split", Choice(("", "random"))),
        ("data.min_rating=choice:none,4", "data.min_rating", Choice((None, 4.0))),
        ("model.clip_memory=0.1:1", "model.clip_memory", Range(0.1, 1.0)),
        ("model.slots=1:30", "model.slots", Range(1, 30)),
        ("seed=0:99", "seed", Range(0, 99)),
    ],
)
def test_a_spec_is_read(spec, field, values):
    space = search_space.parse([spec])
    assert dict(space) == {field: values}
    (found,) = space.values()
    # True == 1 and 1 == 1.0.
    assert list(map(type, found.ends)) == list(map(type, values.ends))
    # As it is told, it can be given.
    assert dict(search_space.parse([f"{field}={found}"])) == {field: values}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("loss.margin", "write field=low:high"),
        ("loss.margin=", "write field=low:high"),
        ("loss.margin=1", "write field=low:high"),
        ("loss.margin=1:2:3", "write field=low:high"),
        ("loss.margin=lgo:1:2", "write field=low:high"),
        ("loss.margn=1:2", "did you mean loss.margin?"),
        ("config.loss.margin=1:2", "did you mean loss.margin?"),
        ("lr=1:2", "there is no field 'lr'"),
        ("model.options=1:2", "there is no field 'model.options'"),
        ("loss.margin=a:2", "'a' is not a number"),
        ("loss.margin=1:inf", "'inf' is not a number"),
        ("loss.margin=nan:1", "'nan' is not a number"),
        ("loss.margin=int:0.5:2", "'0.5' is not a whole number"),
        ("loss.margin=2:1", "the lower end comes first"),
        ("loss.margin=1:1", "the ends differ"),
        ("loss.margin=log:0:1", "begins above 0"),
        ("sampling.negatives=0.5:3", "'0.5' is not a whole number"),
        ("model.dim=choice:8,wide", "'wide' is not a whole number"),
        ("model.dim=choice:8", "at least two values"),
        ("model.dim=choice:8,8", "each named once"),
        ("data.core=choice:5,x", "'x' is not a whole number or none"),
        ("loss.rank_weight=choice:yes,no", "'yes' is not true or false"),
        ("loss.rank_weight=0:1", "choice:true,false"),
        ("optimizer.name=1:2", "choice:word,word"),
        ("evaluation.cutoffs=choice:5,10", "is a list"),
        ("training.select=choice:loss,ndcg@10", "--objective"),
    ],
)
def test_a_bad_spec_is_refused(spec, said):
    with pytest.raises(InputError) as refusal:
        search_space.parse([spec])
    assert f"--vary={spec}: " in str(refusal.value)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_field_and_the_same_twice_are_refused():
    with pytest.raises(InputError, match="--vary: name at least one field"):
        search_space.parse([])
    with pytest.raises(InputError, match=r"loss\.margin is varied twice"):
        search_space.parse([MARGIN, "loss.margin=1:3"])


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (["loss.margin=-1.0:1.0"], ["--vary=loss.margin=-1.0:1.0", "must not be negative"]),
        (["sampling.negatives=0:3"], ["--vary=sampling.negatives=int:0:3", "draw at least 1"]),
        (["optimizer.decay_rate=0.5:1.5"], ["config.optimizer.decay_rate=1.5", "use (0, 1]"]),
        (["optimizer.name=choice:adam,adm"], ["config.optimizer.name='adm'", "use one of"]),
        (["model.name=choice:cml,mf", MARGIN], ["--vary=model.name=", "'mf'", "use one of"]),
        (["model.slots=2:9"], ["model cml does not use model.slots", "hlr, hlrpp, lrml do"]),
        (["model.name=choice:cml,lrml", "model.slots=0:9"], ["--vary=model.slots=", "slots=0"]),
        # Both are fine by themselves, but not with the data.
        (["evaluation.history_length=-1:3"], ["evaluation.history_length=-1"]),
        (
            ["model.name=choice:cml,hlr", "sampling.history_length=5:50"],
            ["--vary=sampling.history_length=int:5:50", f"the catalogue has {ITEMS} items"],
        ),
    ],
)
def test_both_ends_are_checked_before_anything_runs(vary, said, scripted, tmp_path):
    config = config_of(sampling=configs.SamplingConfig(history_length=5))
    with pytest.raises(InputError) as refusal:
        scripted(tmp_path / "s", lambda config: pytest.fail("ran"), vary, trials=1, config=config)
    for part in said:
        assert part in str(refusal.value)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "--trials, --minutes"),
        ({"trials": 0}, "--trials=0"),
        ({"minutes": 0.0}, "--minutes=0.0"),
        ({"trials": 1, "objective": "ncdg@10"}, "--objective='ncdg@10'"),
        ({"trials": 1, "objective": "ndcg@500"}, "a cutoff of 500"),
        ({"trials": 1, "objective": "loss"}, "losses with another loss.margin do not compare"),
        (
            {"trials": 1, "vary": ["training.refit=choice:true,false"]},
            "no trial is trained anew; give --config.training.refit=True",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, said, scripted, tmp_path):
    with pytest.raises(InputError) as refusal:
        scripted(tmp_path / "s", lambda config: pytest.fail("ran"), **arguments)
    assert said in str(refusal.value)
    assert not (tmp_path / "s").exists()


def test_every_field_gets_its_value():
    values = {"seed": 7, "model.name": "lrml", "model.slots": 3, "data.core": None}
    config = search_space.with_values(config_of(), values | {"loss.margin": 0.75})
    assert (config.seed, config.model.name, config.data.core) == (7, "lrml", None)
    assert (config.model.options["slots"], config.model.dim, config.loss.margin) == (3, 4, 0.75)


# --- trials that train ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    """A sweep of real trials, of which some are hopeless and some diverge."""
    folder = tmp_path_factory.mktemp("sweeps") / "trained"
    vary = ["optimizer.learning_rate=choice:1e-9,0.3,3e38"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweep, "STARTUP_TRIALS", 1)
        patched.setattr(sweep, "STARTUP_EPOCHS", 2)
        # By this seed, the first five try all three.
        config = config_of(epochs=6, seed=3)
        outcome = sweep.search(
            config, folder, vary, "ndcg@5", 5, dataset=dataset, show_progress=False
        )
    return folder, outcome


def test_a_sweep_finds_the_rate_that_learns(trained):
    _, outcome = trained
    assert outcome.ranked[0].parameters == {"optimizer.learning_rate": 0.3}
    assert outcome.ranked[0].state == "complete"
    states = {trial.parameters["optimizer.learning_rate"]: trial.state for trial in outcome.trials}
    assert states[3e38] == "diverged"
    (reason,) = {trial.reason for trial in outcome.trials if trial.state == "diverged"}
    assert "no longer finite" in reason
    # The diverging trial was not the last, and what cannot learn was cut short.
    assert outcome.trials[-1].state != "diverged"
    assert {t.state for t in outcome.trials} == {"complete", "pruned", "diverged"}
    for trial in outcome.trials:
        if trial.state == "pruned":
            assert trial.parameters == {"optimizer.learning_rate": 1e-9}
            assert trial.value < outcome.ranked[0].value


def test_the_best_configuration_trains_to_the_same_value(trained, dataset):
    folder, outcome = trained
    config = configs.from_config_dict(files.read_json_object(folder / "best.json"))
    assert config == outcome.best_config
    assert config.optimizer.learning_rate == 0.3
    assert config.training.select == "ndcg@5"
    records: list[dict[str, Any]] = []
    experiment.train(config, None, dataset, show_progress=False, on_epoch=records.append)
    values = [record["valid_ndcg@5"] for record in records]
    assert max(values) == outcome.ranked[0].value
    assert values.index(max(values)) + 1 == outcome.ranked[0].best_epoch


def test_files_tell_of_the_trials(trained):
    folder, outcome = trained
    table = pl.read_csv(folder / "trials.csv")
    columns = ["trial", "state", "ndcg@5", "best_epoch", "seconds", "optimizer.learning_rate"]
    assert table.columns == columns
    assert table["trial"].to_list() == list(range(5))
    assert table["state"].to_list() == [trial.state for trial in outcome.trials]
    assert table["ndcg@5"].max() == outcome.ranked[0].value
    assert (table["seconds"] > 0).all()
    assert (folder / "importance.png").read_bytes().startswith(b"\x89PNG")
    scope: dict[str, Any] = {"__file__": str(folder / "best.py")}
    exec((folder / "best.py").read_text(), scope)
    assert configs.from_config_dict(scope["get_config"]()) == outcome.best_config


# --- how trials end ------------------------------------------------------------------------------


def test_trials_worse_than_the_median_are_pruned(scripted, tmp_path):
    epochs = 2 * sweep.STARTUP_EPOCHS
    started: list[float] = []
    seen: list[int] = []

    def values_of(config):
        started.append(config.loss.margin)
        seen.append(0)
        for _ in range(epochs):
            seen[-1] += 1
            yield 1.0 - 0.1 * len(started)  # Every trial is worse than those before it.

    outcome = scripted(tmp_path, values_of, trials=8, config=config_of(epochs))
    complete = sweep.STARTUP_TRIALS
    assert [trial.state for trial in outcome.trials] == ["complete"] * complete + ["pruned"] * 3
    assert seen == [epochs] * complete + [sweep.STARTUP_EPOCHS] * 3
    assert [trial.number for trial in outcome.ranked] == list(range(8))
    assert outcome.trials[7].value == pytest.approx(0.2)


def test_loss_is_minimised_and_the_first_of_equal_epochs_is_the_best(scripted, tmp_path):
    def values_of(config):
        return [-3.0, -config.optimizer.learning_rate, -config.optimizer.learning_rate]

    vary = ["optimizer.learning_rate=0.1:1.0"]
    outcome = scripted(tmp_path, values_of, vary, objective="loss", trials=5)
    rates = [trial.parameters["optimizer.learning_rate"] for trial in outcome.trials]
    assert [trial.value for trial in outcome.trials] == rates
    assert outcome.ranked[0].value == min(rates)
    assert {trial.best_epoch for trial in outcome.trials} == {2}


def test_a_sweep_goes_on_after_trials_that_fail(scripted, tmp_path):
    ends = iter([DivergedError("no longer finite"), InputError("do not go together"), None])

    def values_of(config):
        yield 0.9
        error = next(ends)
        if error:
            raise error

    outcome = scripted(tmp_path, values_of, trials=3)
    assert [trial.state for trial in outcome.trials] == ["diverged", "refused", "complete"]
    assert [trial.reason for trial in outcome.trials[:2]] == [
        "no longer finite",
        "do not go together",
    ]
    # Training a diverging trial again would fail.
    assert 0 not in [trial.number for trial in outcome.ranked]


def test_values_that_are_not_finite_diverge(scripted, tmp_path):
    values = iter([[float("nan")], [0.5]])
    outcome = scripted(tmp_path, lambda config: next(values), trials=2)
    assert [trial.state for trial in outcome.trials] == ["diverged", "complete"]


def test_without_any_value_the_last_reason_is_told(scripted, tmp_path):
    def values_of(config):
        raise DivergedError("too fast")
        yield

    with pytest.raises(InputError, match="none of 2 trials gave a value; the last one: too fast"):
        scripted(tmp_path, values_of, trials=2)
    assert not (tmp_path / "best.json").exists()
    assert pl.read_csv(tmp_path / "trials.csv")["state"].to_list() == ["diverged"] * 2


def test_time_ends_a_sweep_within_a_trial(scripted, tmp_path):
    seen = []

    def values_of(config):
        while True:
            seen.append(0.5)
            yield 0.5

    endless = config_of(epochs=10**9)
    outcome = scripted(tmp_path, values_of, minutes=0.005, config=endless)
    assert [trial.state for trial in outcome.trials] == ["timeout"]
    assert outcome.trials[0].seconds >= 0.3
    assert outcome.ranked[0].value == 0.5
    # The time is spent, also for the same command later.
    before = len(seen)
    assert scripted(tmp_path, values_of, minutes=0.005, config=endless) == outcome
    assert len(seen) == before


def test_options_are_varied_only_for_models_that_have_them(scripted, tmp_path):
    vary = ["model.slots=2:9", "model.name=choice:cml,lrml", "loss.rank_weight=choice:true,false"]
    config = config_of(sampling=configs.SamplingConfig(history_length=5))
    outcome = scripted(tmp_path, lambda config: [0.5], vary, trials=8, config=config)
    for trial in outcome.trials:
        has_slots = trial.parameters["model.name"] == "lrml"
        assert ("model.slots" in trial.parameters) == has_slots
    table = pl.read_csv(tmp_path / "trials.csv")
    assert set(table["model.name"]) == {"cml", "lrml"}
    assert (table["model.slots"].is_null() == (table["model.name"] == "cml")).all()


def test_varied_data_are_left_to_the_trials(tmp_path, monkeypatch, dataset):
    given = []

    def train(config, workdir, dataset, show_progress, on_epoch):
        given.append((config.data.valid_fraction, dataset))
        on_epoch({"epoch": 1, "valid_ndcg@10": 0.5})

    monkeypatch.setattr(experiment, "train", train)
    config, vary = config_of(), ["data.valid_fraction=0.05:0.2"]
    outcome = sweep.search(config, tmp_path, vary, trials=2, show_progress=False)
    fractions = [trial.parameters["data.valid_fraction"] for trial in outcome.trials]
    assert given == [(fraction, None) for fraction in fractions]
    # Other trials share what was loaded.
    sweep.search(config, tmp_path / "s", [MARGIN], trials=1, dataset=dataset, show_progress=False)
    assert given[-1] == (config.data.valid_fraction, dataset)


def test_only_the_best_is_to_be_trained_anew_on_validation(scripted, tmp_path):
    config = config_of()
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, refit=True))
    outcome = scripted(
        tmp_path, lambda config: [float(config.training.refit)], trials=1, config=config
    )
    assert outcome.ranked[0].value == 0.0
    assert outcome.best_config.training.refit


def test_several_processes_are_refused(scripted, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.processes, "count", lambda: 2)
    with pytest.raises(InputError, match="--num_processes: a sweep is one process"):
        scripted(tmp_path / "s", lambda config: pytest.fail("ran"), trials=1)


# --- stopped and resumed -------------------------------------------------------------------------


def tried(outcome: Any) -> list[Any]:
    return [trial.parameters for trial in outcome.trials if trial.counts]


def value_of(config: Config) -> list[float]:
    return [1 - (config.loss.margin - 1) ** 2]


def test_a_resumed_sweep_tries_what_it_would_have_tried(scripted, tmp_path):
    whole = scripted(tmp_path / "whole", value_of, trials=12)
    for trials in (2, 11, 12, 12):
        parts = scripted(tmp_path / "parts", value_of, trials=trials)
        assert len(parts.trials) == trials
    assert tried(parts) == tried(whole)
    margins = [trial.parameters["loss.margin"] for trial in whole.trials]
    assert len(set(margins)) == 12
    assert all(0.2 <= margin <= 2.0 for margin in margins)
    # Another seed tries something else.
    other = scripted(tmp_path / "other", value_of, trials=1, config=config_of(seed=1))
    assert tried(other)[0] != tried(whole)[0]


def test_an_interrupted_trial_does_not_count_and_is_tried_again(scripted, tmp_path):
    whole = scripted(tmp_path / "whole", value_of, trials=4)
    started = []

    def interrupted(config):
        started.append(config)
        yield from value_of(config)
        if len(started) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command"):
        scripted(tmp_path / "s", interrupted, trials=4)
    table = pl.read_csv(tmp_path / "s" / "trials.csv")
    assert table["state"].to_list() == ["complete", "complete", "interrupted"]
    outcome = scripted(tmp_path / "s", value_of, trials=4)
    assert [t.state for t in outcome.trials] == [
        *["complete"] * 2,
        "interrupted",
        *["complete"] * 2,
    ]
    assert tried(outcome) == tried(whole)
    assert 2 not in [trial.number for trial in outcome.ranked]


def test_a_killed_trial_does_not_count(scripted, tmp_path):
    scripted(tmp_path, value_of, trials=2)
    # As a process leaves it that was killed in the second trial.
    with sqlite3.connect(tmp_path / "sweep.db") as database:
        database.execute(
            "UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE number = 1"
        )
    database.close()
    outcome = scripted(tmp_path, value_of, trials=2)
    assert [trial.state for trial in outcome.trials] == ["complete", "interrupted", "complete"]
    assert outcome.trials[1].parameters == outcome.trials[2].parameters


def test_a_fault_is_raised_and_does_not_count(scripted, tmp_path):
    def faulty(config):
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        scripted(tmp_path, faulty, trials=2)
    outcome = scripted(tmp_path, value_of, trials=2)
    assert [trial.state for trial in outcome.trials] == ["interrupted", "complete", "complete"]


def test_another_search_in_the_same_folder_is_refused(scripted, tmp_path, dataset):
    scripted(tmp_path, value_of, trials=1)
    stored = (tmp_path / "sweep.json").read_text()
    smaller = Interactions.from_pairs(
        np.arange(USERS), np.arange(USERS) % ITEMS, num_users=USERS, num_items=ITEMS
    )
    other = Dataset(
        "other", smaller, dataset.valid, dataset.test, *[np.arange(n) for n in (USERS, ITEMS)]
    )
    for arguments, said in [
        (
            {"vary": ["loss.margin=0.2:3.0"]},
            "with --vary=loss.margin=0.2:2.0, not --vary=loss.margin=0.2:3.0",
        ),
        (
            {"vary": [MARGIN, "model.dim=8:9"]},
            "with no --vary=model.dim, not --vary=model.dim=int:8:9",
        ),
        ({"objective": "ndcg@5"}, "with --objective=ndcg@10, not --objective=ndcg@5"),
        ({"config": config_of(epochs=3)}, "with --config.training.epochs=2, not --config"),
        ({"config": config_of(seed=3)}, "with --config.seed=2021, not --config.seed=3"),
        ({"dataset": other}, "on other data"),
    ]:
        with pytest.raises(InputError) as refusal:
            scripted(tmp_path, lambda config: pytest.fail("ran"), trials=9, **arguments)
        assert f"--workdir={tmp_path} holds a sweep" in str(refusal.value)
        assert said in str(refusal.value)
    assert (tmp_path / "sweep.json").read_text() == stored
    # Written differently it is the same.
    assert len(scripted(tmp_path, value_of, ["loss.margin=0.20:2"], trials=2).trials) == 2


def test_a_second_sweep_at_the_same_time_is_refused(scripted, tmp_path):
    def values_of(config):
        with pytest.raises(InputError, match="another sweep is running there"):
            scripted(tmp_path, value_of, trials=3)
        return [0.5]

    assert len(scripted(tmp_path, values_of, trials=1).trials) == 1


def test_unusable_folders_are_refused(scripted, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; name a folder"):
        scripted(tmp_path / "file", value_of, trials=1)
    scripted(tmp_path / "damaged", value_of, trials=1)
    (tmp_path / "damaged" / "sweep.db").write_bytes(b"damaged " * 1000)
    with pytest.raises(InputError, match=r"sweep\.db: cannot be used"):
        scripted(tmp_path / "damaged", value_of, trials=2)
    (tmp_path / "damaged" / "sweep.json").write_text("{")
    with pytest.raises(InputError, match=r"sweep\.json: not valid JSON"):
        scripted(tmp_path / "damaged", value_of, trials=2)


def test_any_folder_name_will_do(scripted, tmp_path):
    folder = tmp_path / "50% of a?b#c @ 1:2"
    assert len(scripted(folder, value_of, trials=1).trials) == 1
    assert (folder / "sweep.db").is_file()


def test_importances_tell_what_mattered(scripted, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        sweep.sweep_report, "draw", lambda path, outcome, found: drawn.append(found)
    )
    vary = [MARGIN, "optimizer.decay_rate=0.5:1.0"]
    scripted(tmp_path, value_of, vary, trials=sweep.STARTUP_TRIALS - 1)
    scripted(tmp_path, value_of, vary, trials=25)
    assert drawn[0] == {}
    assert drawn[1]["loss.margin"] > 0.8
    assert sum(drawn[1].values()) == pytest.approx(1)
