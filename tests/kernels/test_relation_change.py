"""How relations change distances, by programs of a GPU and by tiles, against float64 loops."""

import functools
import importlib
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest

from hlr_jax import functional, kernels
from hlr_jax.errors import InputError
from hlr_jax.functional import MemoryPairs, TwoSidedPairs, memory_pairs, squared_distance
from hlr_jax.kernels import relation_change_gpu as gpu
from hlr_jax.models.hlr import HLR
from hlr_jax.models.hlrpp import HLRPlusPlus
from hlr_jax.types import History

# The package has a function of the same name.
program = importlib.import_module("hlr_jax.kernels.relation_change")
relation_change_by_tiles = program.relation_change_by_tiles

Pairs = MemoryPairs | TwoSidedPairs
Change = Callable[[Pairs, float], jax.Array]

# Pallas imitates the GPU.
on_gpu = functools.partial(gpu.relation_change_on_gpu, interpret=True)
BOTH = pytest.mark.parametrize("change", [on_gpu, relation_change_by_tiles], ids=["gpu", "tiles"])
SIDES = pytest.mark.parametrize("sides", [1, 2], ids=["HLR", "HLR++"])

# Users, items, places, slots, features: none of them what a block of a GPU is. Which places count:
# all, or some of them in any order and none of the second user. Programs of the gradient.
CASES = {
    "softmax": ((3, 70, 4, 5, 37), "some", 1.0, 512),
    "smoothed, several users and tiles a program": ((5, 75, 3, 7, 19), "some", 0.5, 2),
    "not divided, many slots": ((2, 5, 2, 17, 130), "all", 0.0, 512),
    "only the user, as in LRML": ((3, 35, 1, 3, 8), "all", 1.0, 3),
    "no references": ((2, 3, 2, 3, 4), "none", 0.5, 512),
}


def make_pairs(sizes: tuple[int, ...], which: str, sides: int, dtype: Any = np.float64) -> Pairs:
    """Draw pairs whose parts do not depend on each other, so that each has its own gradient."""
    users, items, places, slots, dim = sizes
    rng = np.random.default_rng(0)
    mask = rng.random((users, places)) < {"all": 1.0, "some": 0.6, "none": 0.0}[which]
    mask[1] &= which != "some"
    shapes = [(items, dim), (users, places, dim), (dim, slots), (users, slots), (items, slots)]
    drawn = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    root = rng.normal(size=(slots, slots)).astype(dtype)
    pairs = MemoryPairs(*drawn[:2], mask, *drawn[2:], gram=root @ root.T)
    pairs = pairs._replace(key=pairs.key * dtype(dim**-0.5))
    users = rng.normal(size=(users, dim)).astype(dtype)
    return pairs if sides == 1 else TwoSidedPairs(pairs, users)


def arrays_of(pairs: Pairs) -> tuple[dict[str, Any], Any]:
    """Take pairs apart: into what they are differentiable in, and the mask."""
    one = pairs.pairs if isinstance(pairs, TwoSidedPairs) else pairs
    arrays = one._asdict() | ({"users": pairs.users} if one is not pairs else {})
    return arrays, arrays.pop("mask")


def as_pairs(arrays: dict[str, Any], mask: Any) -> Pairs:
    rest = {name: x for name, x in arrays.items() if name != "users"}
    pairs = MemoryPairs(mask=mask, **rest)
    return TwoSidedPairs(pairs, arrays["users"]) if "users" in arrays else pairs


def attend(slots: list[np.ndarray], query: np.ndarray, beta: float) -> np.ndarray:
    """Compute `sum_k a_k s_k`."""
    exps = np.exp([s @ query for s in slots])
    return (exps / exps.sum() ** beta) @ np.array(slots) if slots else np.zeros(len(query))


def oracle(pairs: Pairs, beta: float) -> np.ndarray:
    """Compute the change pair by pair, reference by reference."""
    arrays, mask = arrays_of(pairs)
    change = np.zeros((len(mask), len(arrays["items"])))

    def slots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        logits = (x * y) @ arrays["key"]
        exps = np.exp(logits - logits.max())
        return exps / exps.sum()

    for user, query in enumerate(arrays["user_query"]):
        rows = arrays["rows"][user][mask[user]]
        for n, item in enumerate(arrays["items"]):
            item_query = arrays["item_query"][n]
            c = attend([slots(item, row) for row in rows], query, beta)
            if "users" in arrays:
                vector = arrays["users"][user]
                c += attend([slots(vector, row) for row in [item, *rows]], item_query, beta)
            change[user, n] = c @ (2 * (query - item_query) + arrays["gram"] @ c)
    return change


def weight_of(pairs: Pairs) -> np.ndarray:
    arrays, mask = arrays_of(pairs)
    shape = len(mask), len(arrays["items"])
    return np.random.default_rng(7).normal(size=shape).astype(arrays["items"].dtype)


def value_and_gradient(
    change: Change, pairs: Pairs, beta: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Compute changes, and the gradient of their sum, each times a number."""
    (arrays, mask), weight = arrays_of(jax.tree.map(jnp.asarray, pairs)), weight_of(pairs)

    def total(arrays: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        found = change(as_pairs(arrays, mask), beta)
        return (found * weight).sum(), found

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(arrays)
    return found, gradient


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@BOTH
@SIDES
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("float64")
def test_values_and_gradients_are_those_of_loops(
    case: str, sides: int, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient by finite differences of the loops, and entry by entry by the definition."""
    sizes, which, beta, programs = CASES[case]
    monkeypatch.setattr(gpu, "_PROGRAMS", programs)
    pairs = make_pairs(sizes, which, sides)
    found, gradient = value_and_gradient(change, pairs, beta)
    np.testing.assert_allclose(found, oracle(pairs, beta), rtol=1e-10, atol=1e-10)

    _, expected = value_and_gradient(functional.relation_change, pairs, beta)
    arrays, mask = arrays_of(pairs)
    rng, step = np.random.default_rng(1), 1e-5
    for name, x in arrays.items():
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-8, atol=1e-10)
        direction = rng.normal(size=x.shape)
        ahead, behind = (
            oracle(as_pairs(arrays | {name: x + way * direction}, mask), beta)
            for way in (step, -step)
        )
        slope = np.sum(weight_of(pairs) * (ahead - behind)) / (2 * step)
        bound = 1e-6 * np.abs(gradient[name]).max()
        np.testing.assert_allclose(np.sum(gradient[name] * direction), slope, 1e-6, bound)


@BOTH
@SIDES
def test_float32_stays_float32(sides: int, change: Change) -> None:
    pairs = make_pairs((3, 40, 4, 5, 20), "some", sides, np.float32)
    found, gradient = value_and_gradient(change, pairs, 1.0)
    np.testing.assert_allclose(found, oracle(pairs, 1.0), rtol=1e-4, atol=1e-4)
    assert {x.dtype.name for x in (found, *gradient.values())} == {"float32"}


@BOTH
@pytest.mark.parametrize("model", [HLR, HLRPlusPlus])
@pytest.mark.usefixtures("float64")
def test_change_is_that_of_the_models_distance(model: type[HLR], change: Change) -> None:
    """`||u + r - i||^2 - ||u - i||^2`, where the user itself is HLR's last reference."""
    rng = np.random.default_rng(2)
    users, items, rows = (jnp.asarray(rng.normal(size=s)) for s in [(3, 6), (7, 6), (3, 4, 6)])
    key, memory = jnp.asarray(rng.normal(size=(6, 5))), jnp.asarray(rng.normal(size=(5, 6)))
    mask = jnp.asarray(rng.random((3, 4)) < 0.6)
    distances = model(dim=6, slots=5, beta=0.5).apply(
        {"params": {"key": key, "memory": memory}},
        users[:, None],
        jnp.broadcast_to(items, (3, 7, 6)),
        History(rows[:, None], mask[:, None]),
        method="distances",
    )
    if model is HLR:
        rows = jnp.concatenate([rows, users[:, None]], axis=1)
        mask = jnp.concatenate([mask, jnp.ones((3, 1), bool)], axis=1)
    pairs = memory_pairs(users, items, rows, mask, key, memory)
    found = change(pairs if model is HLR else TwoSidedPairs(pairs, users), 0.5)
    expected = distances - squared_distance(users[:, None], items[None])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@BOTH
@SIDES
def test_large_logits_and_what_is_masked_leave_numbers_finite(sides: int, change: Change) -> None:
    arrays, mask = arrays_of(make_pairs((3, 5, 4, 3, 6), "some", sides, np.float32))
    for name in ("key", "user_query", "item_query"):
        arrays[name] = 1000 * arrays[name]
    expected, _ = value_and_gradient(functional.relation_change, as_pairs(arrays, mask), 1.0)
    arrays["rows"][~mask] = np.nan
    found, gradient = value_and_gradient(change, as_pairs(arrays, mask), 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)
    assert all(np.isfinite(x).all() for x in gradient.values())
    assert not np.any(np.asarray(gradient["rows"])[~mask])


@BOTH
@SIDES
def test_histories_of_no_places(sides: int, change: Change) -> None:
    pairs = make_pairs((2, 3, 0, 4, 5), "all", sides, np.float32)
    found, _ = value_and_gradient(change, pairs, 1.0)
    np.testing.assert_allclose(found, oracle(pairs, 1.0), rtol=1e-4, atol=1e-5)


def test_nothing_to_relate() -> None:
    for sizes in ((2, 0, 3, 4, 5), (0, 2, 3, 4, 5)):
        rows = np.zeros((*sizes[:1], 3, 5), np.float32)
        shapes = [(sizes[1], 5), (5, 4), (sizes[0], 4), (sizes[1], 4), (4, 4)]
        items, *rest = (jnp.zeros(shape) for shape in shapes)
        pairs = MemoryPairs(items, jnp.asarray(rows), jnp.ones(rows.shape[:2], bool), *rest)
        assert kernels.relation_change(pairs).shape == sizes[:2]


# --- what is held, and where it runs -------------------------------------------------------------


def abstract_pairs(users: int, items: int, places: int, slots: int, dim: int) -> TwoSidedPairs:
    def floats(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    pairs = MemoryPairs(
        floats(items, dim),
        floats(users, places, dim),
        jax.ShapeDtypeStruct((users, places), jnp.bool_),
        floats(dim, slots),
        floats(users, slots),
        floats(items, slots),
        floats(slots, slots),
    )
    return TwoSidedPairs(pairs, floats(users, dim))


def gradient_of(change: Callable[[Pairs], jax.Array]) -> Callable[..., Any]:
    return jax.value_and_grad(lambda arrays, mask: change(as_pairs(arrays, mask)).sum())


def sizes_in(jaxpr: Any) -> Iterator[int]:
    """Yield the size of everything that a program holds, and the programs in it."""
    for equation in jaxpr.eqns:
        for variable in (*equation.invars, *equation.outvars):
            yield int(np.prod(getattr(variable.aval, "shape", ()), dtype=np.int64))
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from sizes_in(inner)


@SIDES
@pytest.mark.parametrize("change", [gpu.relation_change_on_gpu, relation_change_by_tiles])
def test_neither_pass_holds_slot_weights_of_all_pairs(change: Change, sides: int) -> None:
    """Not even `[u, n, M]`, by far."""
    users, items, places, slots, _ = sizes = (256, 20_000, 50, 20, 100)
    pairs = abstract_pairs(*sizes)
    arguments = arrays_of(pairs if sides == 2 else pairs.pairs)

    def largest(change: Change) -> int:
        function = gradient_of(functools.partial(change, beta=0.5))
        return max(sizes_in(jax.make_jaxpr(function)(*arguments).jaxpr))

    assert largest(functional.relation_change) >= users * items * places * slots
    assert largest(change) < users * items * slots / 2


@SIDES
@pytest.mark.parametrize("precision", ["float32", "high", "default", "BF16_BF16_F32"])
@pytest.mark.parametrize("sizes", [(32, 3260, 50, 20, 100), (5, 7, 1, 64, 256)], ids=str)
def test_programs_are_lowered_to_triton(precision: str, sizes: tuple[int, ...], sides: int) -> None:
    if jaxlib.version.__version_info__ > (0, 10, 2) and not any(
        find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)
    ):
        pytest.skip("from jaxlib 0.10.3 on Triton's compiler comes with JAX's plugin for CUDA")
    pairs = abstract_pairs(*sizes)
    pairs = pairs if sides == 2 else pairs.pairs
    assert program.fits(pairs)

    def change(pairs: Pairs) -> jax.Array:
        with jax.default_matmul_precision(precision):
            return gpu.relation_change_on_gpu(pairs, 0.5)

    traced = jax.jit(gradient_of(change)).trace(*arrays_of(pairs))
    lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert len(re.findall(r"custom_call @\S*triton", lowered)) == 2


def test_where_programs_of_a_gpu_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an NVIDIA GPU, for sizes that fit, and nowhere else in silence."""
    pairs = jax.tree.map(jnp.asarray, make_pairs((2, 3, 2, 3, 4), "some", 1, np.float32))
    monkeypatch.setattr(program, "has_gpu", lambda: False)
    expected = relation_change_by_tiles(pairs, 1.0)
    np.testing.assert_array_equal(kernels.relation_change(pairs), expected)
    with pytest.raises(InputError, match="runs on NVIDIA GPUs, not on ") as raised:
        kernels.relation_change(pairs, implementation="pallas")
    assert "\n" not in str(raised.value)

    monkeypatch.setattr(program, "has_gpu", lambda: True)
    monkeypatch.setattr(gpu, "relation_change_on_gpu", lambda *arguments: expected + 1)
    for implementation in ("auto", "pallas"):
        found = kernels.relation_change(pairs, implementation=implementation)
        np.testing.assert_array_equal(found, expected + 1)
    np.testing.assert_array_equal(kernels.relation_change(pairs, implementation="xla"), expected)

    for sides, sizes in ((1, (2, 3, 2, 65, 4)), (2, (2, 3, 129, 2, 4))):
        large = jax.tree.map(jnp.asarray, make_pairs(sizes, "all", sides, np.float32))
        found = kernels.relation_change(large)
        np.testing.assert_array_equal(found, relation_change_by_tiles(large, 1.0))
        named = f"of 4 features, {sizes[3]} slots, 2 users and {sizes[2]} places"
        with pytest.raises(InputError, match=named):
            kernels.relation_change(large, implementation="pallas")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there may be a GPU")
def test_a_cpu_is_no_gpu() -> None:
    assert not program.has_gpu()


@SIDES
@pytest.mark.skipif(not program.has_gpu(), reason="needs an NVIDIA GPU")
def test_a_gpu_computes_what_tiles_do(sides: int) -> None:
    pairs = make_pairs((32, 3260, 50, 20, 100), "some", sides, np.float32)
    found, gradient = value_and_gradient(gpu.relation_change_on_gpu, pairs, 1.0)
    value, expected = value_and_gradient(relation_change_by_tiles, pairs, 1.0)
    np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-3)
    for name, x in expected.items():
        np.testing.assert_allclose(gradient[name], x, rtol=1e-3, atol=1e-4 * np.abs(x).max())
