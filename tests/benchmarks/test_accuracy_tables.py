"""What `benchmarks/accuracy/` keeps of runs, and what its tables say of them."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import dot_plot, pages, records, summaries
from benchmarks.accuracy.entries import (
    Baseline,
    Model,
    Protocol,
    Reference,
    config_of,
    described,
    fingerprint,
    seeds_of,
)
from benchmarks.accuracy.protocols import PROTOCOLS
from benchmarks.output import COMMITTED, ROOT
from hlr_jax.config import build, files
from hlr_jax.errors import InputError

CML = Model("cml", "tuned", "embedded.py:cml")
LRML = Model("lrml", "tuned", "embedded.py:lrml", pretrained="cml-tuned")
PROTOCOL = Protocol(
    "made-up",
    "Made up.",
    "embedded.py:cml",
    ("ndcg@10", "recall@10"),
    (Baseline("ease", trials=3), CML, LRML),
    references=(Reference("Others", {"ndcg@10": 0.25}, "somebody"),),
)
DATA = {"digest": "a", "items": 9, "split_sizes": {"train": 1000, "valid": 5, "test": 6}}


def filled(values: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    """Results with runs by entry and seed, given the users' values."""
    results: dict[str, Any] = {"data": DATA, "entries": {}}
    for (key, seed), of_users in values.items():
        test = {"users": len(of_users), "ndcg@10": float(np.mean(of_users)), "recall@10": 0.5}
        run = {"test": test, "trials": 3}
        records.add(results, PROTOCOL, key, seed, run, np.array(of_users))
    return results


RESULTS = {
    ("ease", 1): [0.1, 0.4, 0.3, 0.8],
    ("cml-tuned", 1): [0.3, 0.3, 0.5, 0.9],
    ("cml-tuned", 2): [0.5, 0.3, 0.5, 0.9],
    ("lrml-tuned", 1): [0.2, 0.2, 0.2, 0.4],
}


# --- entries -------------------------------------------------------------------------------------


@pytest.fixture
def cml_with(tmp_path):
    """Makes models with configurations of their own, given the arguments of their loss."""

    def make(arguments: str, label: str = "tuned") -> Model:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        path.write_text(
            "from hlr_jax.config import *\n"
            "def get_config():\n"
            "    model = ModelConfig(name='cml')\n"
            f"    return as_config_dict(Config(model=model, loss=LossConfig({arguments})))\n"
        )
        return Model("cml", label, str(path))

    return make


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_entry_has_a_configuration(protocol):
    shared = files.load(f"{ROOT}/configs/{protocol.config}")
    for entry in protocol.entries:
        config = config_of(protocol, entry, seed=5)
        assert config.seed == 5
        assert config.data.name == shared.data.name
        cutoffs = protocol.settings.get("evaluation.cutoffs", shared.evaluation.cutoffs)
        assert config.evaluation.cutoffs == cutoffs
        assert {int(metric.split("@")[1]) for metric in protocol.metrics} <= set(cutoffs)
        for field, value in protocol.settings.items():
            section, _, name = field.partition(".")
            assert getattr(getattr(config, section), name) == value
        if isinstance(entry, Model):
            assert config.model.name == entry.name
            build.build_all(config)
            # What is called tuned was selected as the baselines were.
            if entry.label != "published":
                assert config.training.selection_metric == protocol.selection_metric


def test_committed_runs_are_those_of_the_present_configurations():
    for protocol in PROTOCOLS.values():
        path = COMMITTED / "accuracy" / f"{protocol.name}.json"
        if path.exists():
            stored = json.loads(path.read_text())
            assert records.load(path, protocol, None)["entries"] == stored["entries"]
            found = json.loads(json.dumps(summaries.summary(protocol, stored)))
            assert found["rows"].keys() == stored["summary"]["rows"].keys()
            for key, row in stored["summary"]["rows"].items():
                for metric in protocol.metrics:
                    assert found["rows"][key][metric] == pytest.approx(row[metric])


def test_a_fingerprint_tells_settings_apart_and_nothing_else(cml_with):
    def mark(entry: Model) -> str:
        protocol = Protocol("p", "", PROTOCOL.config, ("ndcg@10",), (entry,))
        return fingerprint(described(protocol, entry))

    # A default, spelled out or not, decides the same run.
    one = cml_with("options={'margin': 0.3}")
    same = cml_with("reduction='sum', options={'margin': 0.3}", "x")
    other = cml_with("options={'margin': 0.4}")
    assert mark(one) == mark(same) != mark(other)
    # Nor does it matter whether the option of a component does.
    assert mark(cml_with("options={'margin': 0.5}")) == mark(cml_with(""))
    assert mark(cml_with("name='warp'")) != mark(cml_with(""))


def test_what_a_run_starts_from_is_a_part_of_its_fingerprint(cml_with):
    changed = cml_with("options={'margin': 0.4}")
    other = Protocol("p", "", PROTOCOL.config, ("ndcg@10",), (changed, LRML))
    assert fingerprint(described(PROTOCOL, LRML)) != fingerprint(described(other, LRML))


def test_an_unknown_setting_or_entry_is_refused(cml_with):
    with pytest.raises(InputError, match=r"margn"):
        config_of(PROTOCOL, cml_with("options={'margn': 0.3}", "x"), 1)
    for field, fault in (("data.cor", "cor"), ("loss.margin", "a protocol sets data and eval")):
        wrong = Protocol("p", "", PROTOCOL.config, ("ndcg@10",), (CML,), {field: 1})
        with pytest.raises(InputError, match=fault):
            config_of(wrong, CML, 1)
    with pytest.raises(InputError, match=r"--entries=hlr: made-up has ease, cml-tuned, lrml"):
        PROTOCOL.named(["hlr"])
    assert PROTOCOL.named(["lrml", "ease"]) == [PROTOCOL.entries[0], LRML]


def test_what_does_not_depend_on_the_seed_runs_once():
    assert seeds_of(Baseline("ease"), [3, 4]) == [3]
    assert seeds_of(Baseline("ials", is_random=True), [3, 4]) == [3, 4]
    assert seeds_of(CML, [3, 4]) == [3, 4]


# --- records -------------------------------------------------------------------------------------


def test_results_come_back_from_their_file(tmp_path):
    results = filled(RESULTS)
    path = tmp_path / "made-up.json"
    records.save(path, results)
    stored = records.load(path, PROTOCOL, DATA)
    assert stored["entries"] == results["entries"]
    assert records.has(stored, "cml-tuned", 2)
    assert not records.has(stored, "cml-tuned", 3)
    values = records.user_values(stored["entries"]["cml-tuned"])
    np.testing.assert_allclose(values, [0.4, 0.3, 0.5, 0.9], atol=1e-4)


def test_runs_of_other_settings_or_data_do_not_count(tmp_path, cml_with):
    changed = cml_with("options={'margin': 0.4}")
    path = tmp_path / "made-up.json"
    records.save(path, filled(RESULTS))
    other = Protocol("p", "", PROTOCOL.config, ("ndcg@10",), (Baseline("ease", 3), changed))
    assert set(records.load(path, other, DATA)["entries"]) == {"ease"}
    assert records.load(path, PROTOCOL, DATA | {"digest": "b"})["entries"] == {}


# --- what they say -------------------------------------------------------------------------------


def test_a_summary_compares_with_the_best_baseline_and_with_cml():
    found = summaries.summary(PROTOCOL, filled(RESULTS))
    assert found["best_peer"] == "ease"
    rows = found["rows"]
    assert list(rows) == ["ease", "cml-tuned", "lrml-tuned"]
    assert rows["cml-tuned"]["seeds"] == [1, 2]
    np.testing.assert_allclose(rows["cml-tuned"]["ndcg@10"]["mean"], (0.5 + 0.55) / 2)
    np.testing.assert_allclose(rows["cml-tuned"]["ndcg@10"]["deviation"], 0.05 / np.sqrt(2))
    assert rows["ease"]["ndcg@10"]["deviation"] is None
    assert "against_best_peer" not in rows["ease"]
    assert "against_cml" not in rows["cml-tuned"]
    np.testing.assert_allclose(rows["cml-tuned"]["against_best_peer"]["difference"], 0.125)
    np.testing.assert_allclose(rows["lrml-tuned"]["against_cml"]["difference"], 0.25 - 0.525)


def test_a_page_keeps_what_people_wrote():
    results = filled(RESULTS)
    found = summaries.summary(PROTOCOL, results)
    table = pages.as_markdown(PROTOCOL, results, found, "plots/")
    assert "(plots/made-up.png)" in table
    assert "| CML | tuned |  | loss | train | 2 | .5250 ± .0354 |" in table
    assert "| EASE | baseline |  | ndcg@10, 3 trials | train + valid | 1 | .4000 |" in table
    assert "| *Others* | *reference* |  |  |  |  | .250 |" in table
    page = pages.render("", {"made-up": table})
    page = page.replace("<!-- end made-up -->", "<!-- end made-up -->\n\nHLR does not win here.")
    again = pages.render(page, {"made-up": table.replace(".5250", ".6000")})
    assert "HLR does not win here." in again
    assert ".6000" in again
    assert ".5250" not in again
    assert again.count("<!-- begin made-up -->") == 1


@pytest.mark.parametrize(
    ("name", "users", "held_out"),
    [("ml-20m-strong", 136_677, 10_000), ("msd-strong", 571_355, 50_000)],
)
def test_fractions_of_users_hold_out_the_numbers_of_the_paper(name, users, held_out):
    config = config_of(PROTOCOLS[name], PROTOCOLS[name].entries[0], seed=0).data
    for fraction in (config.valid_fraction, config.test_fraction):
        assert np.ceil(np.round(users * fraction, 6)) == held_out


def test_a_page_says_where_interactions_are_given():
    results = filled(RESULTS)
    found = summaries.summary(PROTOCOL, results)
    assert "given;" not in pages.as_markdown(PROTOCOL, results, found, "")
    results["data"] = DATA | {"split_sizes": DATA["split_sizes"] | {"given": 7}}
    page = pages.as_markdown(PROTOCOL, results, found, "")
    assert "of training and validation and those given; 4 users are counted" in page


def test_a_page_says_what_relations_are():
    def shown(*means: float, user_mean: float = 0.5) -> str:
        results = filled({("lrml-tuned", seed): [0.2, 0.4] for seed in range(len(means) + 1)})
        # The last run is from before this was measured.
        runs = list(results["entries"]["lrml-tuned"]["runs"].values())
        for run, mean in zip(runs, means, strict=False):
            moves = {"mean": mean, "user_mean": user_mean, "item_mean": 0.5}
            run["diagnosis"] = {"moves": moves}
        return pages.relation(results["entries"]["lrml-tuned"])

    assert shown() == "not measured"
    assert shown(0.002) == "constant (.002)"
    assert shown(0.0002) == "constant (< .001)"
    assert shown(0.29, 0.31) == "varies (.3)"
    assert shown(0.03, 0.05) == "constant (.04)"
    assert shown(0.8, user_mean=0.0) == "by user (.8)"
    found = filled(RESULTS)
    assert "| LRML | tuned | not measured | loss |" in pages.as_markdown(
        PROTOCOL, found, summaries.summary(PROTOCOL, found)
    )


def test_a_plot_shows_what_the_table_does(tmp_path):
    pytest.importorskip("matplotlib", reason="needs pip install 'hlr_jax[bench]'")
    results = filled(RESULTS)
    drawn = []
    for name, change in (("a.png", 0.0), ("b.png", 0.0), ("c.png", 0.2)):
        found = summaries.summary(PROTOCOL, results)
        found["rows"]["cml-tuned"]["ndcg@10"]["mean"] += change
        dot_plot.draw(tmp_path / name, PROTOCOL, results, found)
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_program_refuses_in_one_line_what_there_is_not():
    command = [sys.executable, "-m", "benchmarks.accuracy.tables", "--protocol=nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --protocol=nothing: use one of ml-100k-hlr, ")
    assert done.stderr.count("\n") == 1
