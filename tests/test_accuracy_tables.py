"""What `benchmarks/accuracy.py` keeps of runs, and what it says of them."""

from typing import Any

import numpy as np
import pytest
from harness import dot_plot, pages, records, summaries
from harness.contenders import (
    Baseline,
    Model,
    Protocol,
    Reference,
    config_of,
    described,
    fingerprint,
    seeds_of,
)
from harness.protocols import PROTOCOLS
from scipy import stats

from hlr_jax import models
from hlr_jax.errors import InputError

CML = Model("cml", "tuned", {"model.name": "cml", "loss.margin": 0.3})
LRML = Model("lrml", "tuned", {"model.name": "lrml"}, pretrained="cml-tuned")
PROTOCOL = Protocol(
    "made-up",
    "Made up.",
    {"data.name": "embedded"},
    ("ndcg@10", "recall@10"),
    (Baseline("ease", trials=3), CML, LRML),
    references=(Reference("Others", {"ndcg@10": 0.25}, "somebody"),),
)
DATA = {"digest": "a", "items": 9, "split_sizes": {"train": 1000, "valid": 5, "test": 6}}


def filled(values: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    """Results with runs by contender and seed, given the users' values."""
    results: dict[str, Any] = {"data": DATA, "contenders": {}}
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


# --- contenders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_contender_has_a_configuration(protocol):
    for contender in protocol.contenders:
        config = config_of(protocol, contender, seed=5)
        assert config.seed == 5
        assert config.data.name == protocol.settings["data.name"]
        if isinstance(contender, Model):
            assert config.model.name == contender.name
            models.build(config.model.name, config.model.dim, config.model.options)


def test_a_fingerprint_tells_settings_apart_and_nothing_else():
    def mark(contender: Model) -> str:
        protocol = Protocol("p", "", PROTOCOL.settings, ("ndcg@10",), (contender,))
        return fingerprint(described(protocol, contender))

    # A default, spelled out or not, decides the same run.
    same = Model("cml", "x", {"loss.margin": 0.3, "model.name": "cml", "loss.reduction": "sum"})
    other = Model("cml", "tuned", {"model.name": "cml", "loss.margin": 0.4})
    assert mark(CML) == mark(same) != mark(other)


def test_what_a_run_starts_from_is_a_part_of_its_fingerprint():
    changed = Model("cml", "tuned", {"model.name": "cml", "loss.margin": 0.4})
    other = Protocol("p", "", PROTOCOL.settings, ("ndcg@10",), (changed, LRML))
    assert fingerprint(described(PROTOCOL, LRML)) != fingerprint(described(other, LRML))


def test_an_unknown_setting_or_contender_is_refused():
    wrong = Model("cml", "x", {"model.name": "cml", "loss.margn": 0.3})
    with pytest.raises(InputError, match=r"margn"):
        config_of(PROTOCOL, wrong, 1)
    with pytest.raises(InputError, match=r"--contenders=hlr: made-up has ease, cml-tuned, lrml"):
        PROTOCOL.named(["hlr"])
    assert PROTOCOL.named(["lrml", "ease"]) == [PROTOCOL.contenders[0], LRML]


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
    assert stored["contenders"] == results["contenders"]
    assert records.has(stored, "cml-tuned", 2)
    assert not records.has(stored, "cml-tuned", 3)
    values = records.user_values(stored["contenders"]["cml-tuned"])
    np.testing.assert_allclose(values, [0.4, 0.3, 0.5, 0.9], atol=1e-4)


def test_runs_of_other_settings_or_data_do_not_count(tmp_path):
    path = tmp_path / "made-up.json"
    records.save(path, filled(RESULTS))
    changed = Model("cml", "tuned", {"model.name": "cml", "loss.margin": 0.4})
    other = Protocol("p", "", PROTOCOL.settings, ("ndcg@10",), (Baseline("ease", 3), changed))
    assert set(records.load(path, other, DATA)["contenders"]) == {"ease"}
    assert records.load(path, PROTOCOL, DATA | {"digest": "b"})["contenders"] == {}


# --- what they say -------------------------------------------------------------------------------


def test_the_paired_test_is_students():
    rng = np.random.default_rng(0)
    theirs = rng.random(40)
    ours = theirs + rng.normal(0.05, 0.1, 40)
    found = summaries.paired(ours, theirs)
    # t = mean / (s / sqrt(n)), by hand.
    differences = ours - theirs
    error = differences.std(ddof=1) / np.sqrt(40)
    t = differences.mean() / error
    np.testing.assert_allclose(found["difference"], differences.mean())
    np.testing.assert_allclose(found["p_value"], 2 * stats.t.sf(abs(t), 39))
    half = stats.t.ppf(0.975, 39) * error
    np.testing.assert_allclose(
        found["interval"], [differences.mean() - half, differences.mean() + half]
    )


def test_equal_values_differ_by_nothing():
    same = np.array([0.1, 0.7, 0.3])
    assert summaries.paired(same, same) == {
        "difference": 0.0,
        "interval": [0.0, 0.0],
        "p_value": 1.0,
    }


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
    table = pages.as_markdown(PROTOCOL, results, summaries.summary(PROTOCOL, results))
    assert "| CML | tuned | loss | train | 2 | .5250 ± .0354 |" in table
    assert "| EASE | baseline | ndcg@10, 3 trials | train + valid | 1 | .4000 |" in table
    assert "| *Others* | *reference* |  |  |  | .250 |" in table
    page = pages.render("", {"made-up": table})
    page = page.replace("<!-- end made-up -->", "<!-- end made-up -->\n\nHLR does not win here.")
    again = pages.render(page, {"made-up": table.replace(".5250", ".6000")})
    assert "HLR does not win here." in again
    assert ".6000" in again
    assert ".5250" not in again
    assert again.count("<!-- begin made-up -->") == 1


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
