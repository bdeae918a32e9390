"""Ranking by the sizes that an accelerator is given: a CPU's results, in few large steps."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from support.placed_runs import config_of, data, placed, recommender, start
from support.ranked import CASES, ITEMS, USERS, build, known, ranker

from hlr_jax.errors import InputError
from hlr_jax.evaluation import batch_memory, ranking, user_batches
from hlr_jax.evaluation.ranker import PlacedRanker
from hlr_jax.functional.geometry.lorentz import Lorentz
from hlr_jax.kernels import sizes
from hlr_jax.kernels.sizes import Sizes
from hlr_jax.parallel import devices

EVERYONE = np.arange(USERS, dtype=np.int32)


@pytest.fixture
def on_cpu() -> Iterator[pytest.MonkeyPatch]:
    """To choose other sizes by; leaves no program behind that was compiled with them."""
    with pytest.MonkeyPatch.context() as patched:
        yield patched
    ranking.top_k.clear_cache()


def become_accelerator(patched: pytest.MonkeyPatch, small: bool = False) -> None:
    """Choose sizes as for an accelerator; small ones need several tiles, tables and blocks."""
    ranking.top_k.clear_cache()
    patched.setattr(sizes, "is_cpu", lambda: False)
    if small:
        patched.setattr(sizes, "scoring_sizes", lambda: Sizes(400, 2000, 8))
        patched.setattr(sizes, "_ITEMS_UNIT", 16)
        patched.setattr(sizes, "_TILE_SCORES", 32 * 5)


@pytest.mark.parametrize("small", [False, True], ids=["large", "small"])
@pytest.mark.parametrize("case", CASES)
def test_ids_and_scores_are_those_of_a_cpu(case, small, on_cpu):
    items = 90
    geometry = Lorentz(curvature=0.7) if case == "hlr-separate" else None
    model, params = build(CASES[case], *filter(None, [geometry]), items=items)
    ranks = {k: ranker(model, params, 5) for k in (2, items)}
    wanted = {k: ranks[k].top_k(EVERYONE, k, known(items), known(items)) for k in ranks}
    become_accelerator(on_cpu, small)
    for k, (ids, scores) in wanted.items():
        found_ids, found_scores = ranks[k].top_k(EVERYONE, k, known(items), known(items))
        np.testing.assert_array_equal(found_ids, ids)
        np.testing.assert_allclose(found_scores, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "count", "shards"), [("users", 3, 1), ("both", 8, 4)])
def test_sharded_tables_rank_as_one_device_does(mode, count, shards, on_cpu):
    config, seen = config_of("hlr"), data().train.union(data().valid)
    users = np.arange(53, dtype=np.int32)

    def rank(*where: Any) -> Any:
        placement = placed(*where)
        return recommender(config, placement, start(config, placement)[0]).top_k(users, 35, seen)

    ids, scores = rank("replicated", 1, 1)
    become_accelerator(on_cpu, small=True)
    for where in (("replicated", 1, 1), (mode, count, shards)):
        found_ids, found_scores = rank(*where)
        np.testing.assert_array_equal(found_ids, ids)
        np.testing.assert_allclose(found_scores, scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["cml", "hlr"])
def test_no_tile_is_sorted_on_a_gpu(case, on_cpu):
    items, k, programs = 2000, 3, []
    top_k = ranking.top_k

    def lowered(users: Any, tables: Any, *static: Any) -> Any:
        # Of leaves: JAX would put what is no array where the types ask for one.
        leaves, tree = jax.tree.flatten((users, tables))
        program = jax.jit(lambda *leaves: top_k(*tree.unflatten(leaves), *static)).trace(*leaves)
        programs.append(program.lower(lowering_platforms=("cuda",)).as_text())
        return top_k(users, tables, *static)

    become_accelerator(on_cpu)
    on_cpu.setattr(ranking, "top_k", lowered)
    ranker(*build(CASES[case], items=items)).top_k(EVERYONE, k, known(items), known(items))
    on_cpu.undo()
    tile, group = 2048, 16
    widths = [
        tuple(map(int, found))
        for found in re.findall(r"chlo\.top_k.*?: tensor<(\d+)x(\d+)xf32>", programs[0])
    ]
    assert widths == [(USERS, tile // group), (USERS, k + k * group)]
    # Which groups, in order; no scores.
    sorts = re.findall(r'"stablehlo\.sort.*?\}\) : \(tensor<(\S+)>\)', programs[0], re.DOTALL)
    assert sorts == [f"{USERS}x{k}xi32"]


@pytest.mark.parametrize("is_on_cpu", [True, False])
def test_ids_are_32_bits_wide_also_where_the_default_is_64(is_on_cpu, on_cpu):
    expected = ranker(*build(CASES["cml"])).top_k(EVERYONE, 3, known(ITEMS), known(ITEMS))
    if not is_on_cpu:
        become_accelerator(on_cpu)
    with jax.enable_x64(True):
        found = ranker(*build(CASES["cml"])).top_k(EVERYONE, 3, known(ITEMS), known(ITEMS))
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("users", [1, 64, 5000, 8128, 10**6])
@pytest.mark.parametrize("items", [1, 23, 512, 700, 13_000, 10**6])
def test_tiles_are_equal_and_fill_up_little(users, items, on_cpu):
    become_accelerator(on_cpu)
    tile = sizes.ranking_tile(users, items)
    tiles = -(-items // tile)
    assert tile * users <= max(sizes._TILE_SCORES, sizes._ITEMS_UNIT * users)
    assert tiles * tile - items < max(64, tiles * sizes._ITEMS_UNIT)
    assert tile % 64 == 0


def test_few_steps_rank_the_largest_catalogue(on_cpu):
    """The shapes of ML-20M with HLR: what stands in docs/speed.md."""
    become_accelerator(on_cpu)
    tile, few = sizes.ranking_tile(8128, 13_000), sizes.table_tile(13_000, 20)
    assert (tile, few) == (6656, 512)
    assert sizes.block_rows(8128, 50 * 20 * few) == 254
    assert sizes.block_rows(13_000, 20 * few) == 13_000
    assert sizes.top_k_group(tile, 10) == 16


# --- one batch ahead -----------------------------------------------------------------------------


def test_a_batch_begins_before_the_last_one_is_read(on_cpu):
    events: list[str] = []

    class Result:
        def __init__(self, value: np.ndarray) -> None:
            self.value = value

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            events.append("read")
            return self.value

    def begin(ranker: Any, users: np.ndarray, hidden: Any, k: int) -> Any:
        events.append("begin")
        return Result(np.zeros((users.size, k), np.int32)), Result(np.zeros((users.size, k), "f4"))

    on_cpu.setattr(PlacedRanker, "_top_k_of_batch", begin)
    model, params = build(CASES["cml"])

    def happened() -> str:
        events.clear()
        ranker(model, params, 4).top_k(EVERYONE, 2, known(), known())
        return " ".join(events).replace("read read", "read")

    assert happened() == "begin read begin read begin read"
    become_accelerator(on_cpu)
    assert happened() == "begin begin read begin read read"
    assert list(user_batches.late(iter(range(5)), 3)) == list(range(5))


# --- what fits -----------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_refused_with_one_that_does(on_cpu):
    model, params = build(CASES["hlr"])
    become_accelerator(on_cpu)

    def needed(users: int) -> int:
        return batch_memory.batch_bytes(model, users, ITEMS, 4)

    ranks = ranker(model, params)
    assert needed(12) > needed(7) > needed(1)
    for free, users in ((needed(7), 7), (needed(12) - 1, 11), (needed(1), 1)):
        on_cpu.setattr(devices, "free_bytes", lambda _, free=free: free)
        with pytest.raises(InputError, match=rf"evaluation\.batch_size: .* at most {users}$"):
            ranks.top_k(EVERYONE, 2, known(), known())
        ranks.top_k(EVERYONE[:users], 2, known(), known())
    on_cpu.setattr(devices, "free_bytes", lambda _: 0)
    with pytest.raises(InputError, match="not even one user fits"):
        ranks.top_k(EVERYONE, 2, known(), known())
    for free in (None, needed(12)):
        on_cpu.setattr(devices, "free_bytes", lambda _, free=free: free)
        ranks.top_k(EVERYONE, 2, known(), known())


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("fits", [1, 15, 20, 63, 64, 70, 1000])
def test_the_largest_batch_leaves_no_group_more_than_fits(fits, groups):
    most = user_batches.largest_batch(fits, groups)
    count = groups if most >= sizes.FEW_USERS else 1
    for users in (1, 63, 64, 999, 10_000):
        places = np.array_split(np.arange(users), count)
        assert user_batches.divide(places, min(most, users))[1] <= max(fits, 1)
    assert most >= min(fits, sizes.FEW_USERS - 1)


def test_devices_say_what_is_free():
    assert devices.free_bytes(None) is None
    assert devices.free_bytes({"bytes_in_use": 3}) is None
    assert devices.free_bytes({"bytes_in_use": 3, "bytes_limit": 10}) == 7
    assert devices.free_bytes(jax.devices("cpu")[0].memory_stats()) is None
