"""A sweep of real trials: what they find, and the files that hold it."""

from typing import Any

import polars as pl
import pytest
from jax import monitoring
from sweeps import MARGIN, config_of

from hlr_jax import config as configs
from hlr_jax import files
from hlr_jax.runs import experiment
from hlr_jax.runs.trackers import Each
from hlr_jax.tuning import study, sweep


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    """A sweep of real trials, of which some are hopeless and some diverge."""
    folder = tmp_path_factory.mktemp("sweeps") / "trained"
    vary = ["optimizer.learning_rate=choice:1e-9,0.3,3e38"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(study, "STARTUP_TRIALS", 1)
        patched.setattr(study, "STARTUP_EPOCHS", 2)
        # By this seed, the first five try all three.
        config = config_of(epochs=6, objective="ndcg@5", seed=3)
        outcome = sweep.search(config, folder, vary, sweep.Budget(5), dataset, show_progress=False)
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
    assert config.training.selection_metric == "ndcg@5"
    records: list[dict[str, Any]] = []
    experiment.train(config, None, dataset, show_progress=False, callbacks=[Each(records.append)])
    values = [record["valid_ndcg@5"] for record in records]
    assert max(values) == outcome.ranked[0].value
    assert values.index(max(values)) + 1 == outcome.ranked[0].best_epoch


def test_files_hold_the_trials(trained):
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


def test_trials_with_other_numbers_share_their_programs(tmp_path, dataset):
    """Rates, margins and radii are no constants of programs."""
    vary = ["optimizer.learning_rate=log:0.001:0.1", MARGIN, "geometry.radius=1.0:2.0"]
    compiled: list[str] = []

    def note(event: str, duration: float, **of: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(of))

    monitoring.register_event_duration_secs_listener(note)
    try:
        for trials in (1, 10):
            compiled.clear()
            config = config_of(epochs=2)
            outcome = sweep.search(
                config, tmp_path, vary, sweep.Budget(trials), dataset, show_progress=False
            )
            assert len({trial.parameters["loss.margin"] for trial in outcome.trials}) == trials
    finally:
        monitoring.unregister_event_duration_listener(note)
    assert not compiled
