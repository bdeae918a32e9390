"""How trials of a sweep end, and which of them is best."""

import dataclasses

import polars as pl
import pytest
from sweeps import MARGIN, config_of, value_of

from hlr_jax import config as configs
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.runs import experiment
from hlr_jax.tuning import report, study, sweep


def test_trials_worse_than_the_median_are_pruned(scripted, tmp_path):
    epochs = 2 * study.STARTUP_EPOCHS
    started: list[float] = []
    seen: list[int] = []

    def values_of(config):
        started.append(config.loss.options["margin"])
        seen.append(0)
        for _ in range(epochs):
            seen[-1] += 1
            yield 1.0 - 0.1 * len(started)  # Every trial is worse than those before it.

    outcome = scripted(tmp_path, values_of, trials=8, config=config_of(epochs))
    complete = study.STARTUP_TRIALS
    assert [trial.state for trial in outcome.trials] == ["complete"] * complete + ["pruned"] * 3
    assert seen == [epochs] * complete + [study.STARTUP_EPOCHS] * 3
    assert [trial.number for trial in outcome.ranked] == list(range(8))
    assert outcome.trials[7].value == pytest.approx(0.2)


def test_loss_is_minimised_and_the_first_of_equal_epochs_is_the_best(scripted, tmp_path):
    def values_of(config):
        return [-3.0, -config.optimizer.learning_rate, -config.optimizer.learning_rate]

    vary = ["optimizer.learning_rate=0.1:1.0"]
    outcome = scripted(tmp_path, values_of, vary, trials=5, config=config_of(objective="loss"))
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


def test_without_any_value_the_last_reason_is_reported(scripted, tmp_path):
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
    vary = ["model.slots=2:9", "model.name=choice:cml,lrml", "loss.copy_relation=choice:true,false"]
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

    def train(config, dataset, callback):
        given.append((config.data.valid_fraction, dataset))
        callback.on_epoch({"epoch": 1, "valid_ndcg@10": 0.5})

    monkeypatch.setattr(experiment, "try_out", train)
    config, vary = config_of(), ["data.valid_fraction=0.05:0.2"]
    outcome = sweep.search(config, tmp_path, vary, sweep.Budget(2), show_progress=False)
    fractions = [trial.parameters["data.valid_fraction"] for trial in outcome.trials]
    assert given == [(fraction, None) for fraction in fractions]
    # Other trials share what was loaded.
    sweep.search(
        config, tmp_path / "s", [MARGIN], sweep.Budget(1), dataset=dataset, show_progress=False
    )
    assert given[-1] == (config.data.valid_fraction, dataset)


def test_trials_are_not_refitted_and_the_best_configuration_says_to_refit(scripted, tmp_path):
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


def test_importances_show_what_mattered(scripted, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "draw", lambda path, outcome, found: drawn.append(found))
    vary = [MARGIN, "optimizer.decay_rate=0.5:1.0"]
    scripted(tmp_path, value_of, vary, trials=study.STARTUP_TRIALS - 1)
    scripted(tmp_path, value_of, vary, trials=25)
    assert drawn[0] == {}
    assert drawn[1]["loss.margin"] > 0.8
    assert sum(drawn[1].values()) == pytest.approx(1)
