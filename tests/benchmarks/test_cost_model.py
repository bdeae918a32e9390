"""What `benchmarks/scaling/` counts and fits, on programs and rows whose numbers are known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from benchmarks.output import COMMITTED
from benchmarks.scaling import cost_model, traffic
from benchmarks.scaling.cost_model import Rates, Step


def test_traffic_is_counted_in_the_compiled_program():
    """Of 4 devices: a sum of 300 floats over all, a gather and a scattered sum over pairs."""
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("a", "b"))

    def exchange(x, y):
        gathered = jax.lax.all_gather(y, "b", tiled=True)  # 20 floats from 10
        scattered = jax.lax.psum_scatter(jnp.tile(y, 4), "a", tiled=True)  # 20 floats from 40
        return jax.lax.psum(x, ("a", "b")), gathered, scattered

    spread, whole = PartitionSpec(("a", "b")), PartitionSpec()
    program = jax.jit(
        jax.shard_map(
            exchange,
            mesh=mesh,
            in_specs=(whole, spread),
            out_specs=(whole, PartitionSpec("a"), spread),
            check_vma=False,
        )
    )
    text = program.lower(jnp.ones(300), jnp.ones(40)).compile().as_text()
    found = traffic.of_program(text, 4)
    # A ring of n sends (n - 1) / n of the whole, for a sum twice.
    assert found.sent_bytes == {
        "all-reduce": 2 * 3 * 4 * 300 // 4,
        "all-gather": 4 * 20 // 2,
        "reduce-scatter": 4 * 40 // 2,
    }
    assert found.collectives == 3


def test_memory_and_traffic_of_a_step_by_hand():
    """8 devices, users and items sharded; 10 triplets of CML for each; sparse updates."""
    step = Step(*("cml", "sparse", 800, 60, 1600, 8, 10), shards_users=True, item_shards=2, dim=4)
    assert step.updated == (10, 30)  # users of its own batch; of 8 * 20 places all of the shard
    assert cost_model.memory(step) == {
        "users and moments": 12 * 4 * 100,
        "items and moments": 12 * 4 * 30,
        "scratch and offsets": 4 * (100 + 30 + 100),
        "interactions": 12 * 200,
        "order of an epoch": 4 * 200,
    }
    # Twenty rows of 4 floats and their ids: to the other shard, and from all to all.
    assert cost_model.sent(step) == 4 * 20 * (4 + 1) * (1 + 7)


def _row(seconds: dict[str, float], gain: float, **sizes) -> dict:
    row = {
        **{"model": "hlr", "update": "dense", "mode": "replicated", "devices": 1, "batch": 1000},
        **{"users": 2000, "items": 500, "interactions": 9000, "dim": 8, "slots": 4, "history": 5},
        **sizes,
    }
    row["sent_bytes"] = {"all-reduce": 1000 * (row["devices"] - 1) * (1 + row["batch"] % 7)}
    row["collectives"] = (row["devices"] - 1) % 3
    work = cost_model.work(Step.of_row(row), row["sent_bytes"]["all-reduce"], row["collectives"])
    share = 1 if row["devices"] == 1 else row["devices"] / gain
    total = seconds["step"] + share * sum(
        seconds[name] * amount for name, amount in work.items() if name != "step"
    )
    row["milliseconds"] = {"min": 1e3 * total}
    return row


@pytest.mark.parametrize("gain", [1.0, 1.57])
def test_rates_are_found_again(gain):
    """Rows made from known rates, one of them zero."""
    units = [unit for _, unit in cost_model.TERMS.values()]
    amounts = (0.4, 100.0, 30.0, 90.0, 0.0, 200.0, 300.0)
    seconds = {n: a * u for n, a, u in zip(cost_model.TERMS, amounts, units, strict=True)}
    rows = [
        _row(seconds, gain, model=model, update=update, mode=mode, devices=devices, batch=batch)
        for model in ("cml", "hlr")
        for update in ("dense", "sparse")
        for mode in ("replicated", "users sharded")
        for devices in (1, 2, 4)
        for batch in (400, 1000, 4800)
    ]
    found = Rates.fitted(rows, cores=2)
    assert found.gain == pytest.approx(gain)
    for name in cost_model.TERMS:
        # What a rate makes of the time of the row in which it counts most.
        most = max(rows, key=lambda row, name=name: Rates(seconds, gain).parts(row)[name])
        error = found.parts(most)[name] - Rates(seconds, gain).parts(most)[name]
        assert abs(1e3 * error / most["milliseconds"]["min"]) < 1e-6, name
    np.testing.assert_allclose(found.errors(rows), 0, atol=1e-9)


def test_the_committed_measurements_give_the_committed_fit():
    stored = json.loads((COMMITTED / "scaling.json").read_text())
    cores = stored["machine"]["cores"]
    rates = Rates.fitted(stored["scaling"], cores)
    assert rates.gain == stored["fit"]["gain"]
    for name, term in stored["fit"]["terms"].items():
        assert rates.seconds[name] == pytest.approx(term["seconds"], rel=1e-6)
    for row in stored["scaling"]:
        if row["collectives"]:
            sent = cost_model.sent(Step.of_row(row))
            assert sent == pytest.approx(sum(row["sent_bytes"].values()), rel=0.02)
