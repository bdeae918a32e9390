"""Names of entries, verdicts, and the figure."""

import dataclasses
import pathlib
import sys

import numpy as np
import pytest
from support.small_runs import config_of

from hlr_jax import config as configs
from hlr_jax import files
from hlr_jax.comparison import Comparison, Entry
from hlr_jax.comparison.folders import Plan, TrainedRun
from hlr_jax.comparison.groups import grouped
from hlr_jax.comparison.result import paired_tests
from hlr_jax.comparison.words import decimal, metric_name, p_value, signed
from hlr_jax.config import EvaluationConfig, ShardingConfig
from hlr_jax.errors import InputError
from hlr_jax.runs.diagnosis import Diagnosis


def run_of(folder, seed=1, **fields):
    return TrainedRun(pathlib.Path(folder), config_of(seed=seed, **fields), {})


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "name"),
    [
        (["runs/cml_1", "runs/cml_2"], "cml"),
        (["runs/cml_seed=1", "runs/cml_seed=2"], "cml"),
        (["runs/ml_100k_cml_2021", "runs/ml_100k_cml_2022"], "ml_100k_cml"),
        (["runs/cml/1", "runs/cml/2"], "cml"),
        (["runs/cml/seed1", "runs/cml/seed2"], "cml"),
        (["runs/first", "runs/second"], "first, second"),
        (["runs/hlr2_1", "runs/hlr2_2"], "hlr2"),
        (["runs/hlr2"], "hlr2"),
    ],
)
def test_seeds_are_named_by_what_they_share(folders, name):
    found = grouped([run_of(folder, seed) for seed, folder in enumerate(folders)])
    assert [group.name for group in found] == [name]
    assert len(found[0].members) == len(folders)


def test_equal_names_are_told_apart_by_their_folders():
    found = grouped([run_of("one/cml"), run_of("two/cml", learning_rate=0.1)])
    assert [group.name for group in found] == ["one/cml", "two/cml"]


def test_runs_with_the_same_seed_are_not_two_seeds():
    found = grouped([run_of("a"), run_of("b"), run_of("c", seed=2)])
    assert [group.name for group in found] == ["a", "b", "c"]


def test_only_what_decides_a_run_makes_another_configuration():
    usual = run_of("a")
    for section, same in (
        ("evaluation", EvaluationConfig(cutoffs=(3,), bootstrap=7, per_user=True, batch_size=3)),
        ("sharding", ShardingConfig(tables="sharded")),
    ):
        config = dataclasses.replace(usual.config, **{section: same})
        assert TrainedRun(usual.folder, config, {}).configuration == usual.configuration
    for section, other in (
        ("evaluation", EvaluationConfig(history_length=3)),
        ("training", dataclasses.replace(usual.config.training, epochs=8)),
    ):
        config = dataclasses.replace(usual.config, **{section: other})
        assert TrainedRun(usual.folder, config, {}).configuration != usual.configuration


def test_starting_from_runs_of_other_seeds_is_the_same_configuration(tmp_path):
    starts = {"a": config_of(seed=1), "b": config_of(seed=2), "c": config_of(learning_rate=0.5)}
    for name, config in starts.items():
        (tmp_path / name).mkdir()
        files.write_json(tmp_path / name / "config.json", configs.as_dict(config))
    a, b, c = (run_of(name, pretrained=str(tmp_path / name)).configuration for name in starts)
    assert a == b != c


# --- words ---------------------------------------------------------------------------------------


def test_numbers_and_metrics_are_written_as_people_do():
    assert [metric_name(name) for name in ("ndcg@10", "recall@5")] == ["NDCG@10", "recall@5"]
    assert [decimal(0.25), decimal(1.5, 1), decimal(10.25, 2)] == [".2500", "1.5", "10.25"]
    assert [signed(0.0042), signed(-0.5)] == ["+.0042", "-.5000"]
    assert [p_value(0.0161), p_value(0.0004), p_value(1.0)] == ["= .016", "< .001", "= 1.000"]


def entry_of(name, values, kind="run", diagnoses=(), seeds=(1, 2, 3)):
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    of_metric = {"ndcg@10": mean}
    return Entry(
        name=name,
        kind=kind,
        label="cml",
        folders=[name],
        seeds=seeds,
        values={"ndcg@10": values},
        of_seeds={"ndcg@10": [mean] * len(seeds)},
        means=of_metric,
        intervals={"ndcg@10": [mean - 0.1, mean + 0.1]},
        diagnoses=diagnoses,
    )


def comparison_of(*entries, reference="cml"):
    plan = Plan("test", "full", ("ndcg@10",), True)
    return Comparison(
        plan, "made-up", reference, entries, paired_tests(entries, "ndcg@10", reference)
    )


RANDOM = np.random.default_rng(0)
BASE = RANDOM.random(40) / 2
BETTER = BASE + 0.1 + RANDOM.normal(0, 0.05, 40)
SAME = BASE + RANDOM.permutation(np.repeat([0.01, -0.01], 20))


def diagnosis_of(mean):
    """Of a relation whose mean over pairs, in its place, moves distances by so much."""
    moves = {"mean": mean, "user_mean": mean, "item_mean": mean, "zero": 1.0}
    return Diagnosis(9, 9, 0.3, 0.1, {}, moves, {}, {}, {})


CONSTANT, VARYING = diagnosis_of(0.01), diagnosis_of(0.3)


def test_verdicts_say_it_in_words():
    found = comparison_of(
        entry_of("cml", BASE),
        entry_of("mine", BETTER),
        entry_of("ease", BASE - 0.1 + (SAME - BASE), "baseline"),
        entry_of("other", SAME),
    )
    ease, mine, other = found.verdicts  # those of the runs last
    pair = found.pairs[0]
    low, high = map(signed, pair.interval)
    assert mine == (
        f"mine: NDCG@10 {signed(pair.difference)} [{low}, {high}] over cml (Holm p < .001): it pays"
    )
    assert ease.startswith("ease: NDCG@10 -.1000")
    assert ease.endswith("it is worse")
    assert other.endswith("(Holm p = 1.000): no difference that 40 users can tell")


def test_verdicts_are_by_the_corrected_p_value():
    # With t = 2.3 p is about .03: enough for one test, not for three.
    noise = RANDOM.normal(size=40)
    nearly = BASE + 0.01 * ((noise - noise.mean()) / noise.std(ddof=1) + 2.3 / np.sqrt(40))
    entries = [entry_of("cml", BASE), entry_of("mine", nearly)]
    alone = comparison_of(*entries)
    assert 0.02 < alone.pairs[0].p_value < 0.05
    assert alone.verdicts[0].endswith("it pays")
    among = comparison_of(*entries, entry_of("b", SAME), entry_of("c", SAME))
    assert among.pairs[0].p_holm == pytest.approx(3 * alone.pairs[0].p_value)
    assert among.verdicts[0].endswith("no difference that 40 users can tell")


def test_verdicts_of_few_seeds_say_so():
    found = comparison_of(entry_of("cml", BASE), entry_of("mine", BETTER, seeds=(1, 2)))
    assert found.verdicts[0].endswith("it pays, of 2 seeds; take 3, they may differ by as much")
    found = comparison_of(entry_of("cml", BASE, seeds=(1,)), entry_of("mine", BETTER))
    assert found.verdicts[0].endswith("it pays, of 1 seed; take 3, they may differ by as much")
    # A baseline may have no seed to vary.
    ease = entry_of("ease", BETTER, kind="baseline", seeds=(1,))
    assert comparison_of(entry_of("cml", BASE), ease).verdicts[0].endswith("it is better")


def test_verdicts_name_constant_relations():
    found = comparison_of(
        entry_of("cml", BASE),
        entry_of("mine", BETTER, diagnoses=[CONSTANT, CONSTANT]),
        entry_of("same", SAME, diagnoses=[CONSTANT]),
        entry_of("half", BETTER, diagnoses=[CONSTANT, VARYING]),
        entry_of("real", BETTER, diagnoses=[VARYING]),
    )
    mine, same, half, real = found.verdicts
    assert mine.endswith("it pays, but its relation is a constant")
    assert same.endswith("can tell, and its relation is a constant")
    assert half.endswith("it pays")
    assert real.endswith("it pays")
    assert [entry.relation for entry in found.entries] == [
        "-",
        "constant (.01)",
        "constant (.01)",
        "varies (.15)",
        "varies (.3)",
    ]


def test_printed_tables_have_a_row_for_each_entry_and_test():
    found = comparison_of(entry_of("cml", BASE), entry_of("mine", BETTER))
    (first, second) = found.means_table().iter_rows(named=True)
    mean = BASE.mean()
    assert first["NDCG@10"] == f"{decimal(mean)} [{decimal(mean - 0.1)}, {decimal(mean + 0.1)}]"
    assert (second["name"], second["users"], second["relation"]) == ("mine", 40, "-")
    assert found.caption.startswith("made-up, test, full ranking; 95 % intervals are over users")
    assert "Holm's correction for 1 in each metric; beside what a relation is" in found.caption
    (row,) = found.tests_table().iter_rows(named=True)
    assert row["Holm p"] == "< .001"
    assert row["users"] == 40
    assert row["better"] == f"{np.mean(BETTER > BASE):.0%}"


# --- figure --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["cml", "all"])
@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_a_figure_is_drawn(reference, suffix, start, tmp_path):
    entries = [entry_of("cml", BASE), entry_of("a_long_name_" * 6, BETTER), entry_of("c", SAME)]
    comparison_of(*entries, reference=reference).draw(tmp_path / f"found{suffix}")
    assert (tmp_path / f"found{suffix}").read_bytes().startswith(start)


def test_a_missing_matplotlib_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "hlr_jax.comparison.figure", raising=False)
    monkeypatch.delattr("hlr_jax.comparison.figure", raising=False)
    found = comparison_of(entry_of("cml", BASE), entry_of("mine", BETTER))
    with pytest.raises(InputError, match=r"needs matplotlib: pip install 'hlr_jax\[sweep\]'"):
        found.draw(tmp_path / "found.png")
