"""How relations change distances, by programs of a GPU and by tiles, against float64 loops."""

import functools
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
from hlr_jax.functional import MemoryPairs, memory_pairs, squared_distance
from hlr_jax.kernels import relation_change_gpu as gpu
from hlr_jax.kernels.relation_change import relation_change_by_tiles

Change = Callable[[MemoryPairs, float], jax.Array]

# Pallas imitates the GPU.
on_gpu = functools.partial(gpu.relation_change_on_gpu, interpret=True)
BOTH = pytest.mark.parametrize("change", [on_gpu, relation_change_by_tiles], ids=["gpu", "tiles"])
ARRAYS = ("items", "rows", "key", "user_query", "item_query", "gram")

# Users, items, places, slots, features: none of them what a block of a GPU is. Which places count:
# all, or some of them in any order and none of the second user. Programs of the gradient.
CASES = {
    "softmax": ((3, 70, 4, 5, 37), "some", 1.0, 512),
    "smoothed, several users and tiles a program": ((5, 75, 3, 7, 19), "some", 0.5, 4),
    "not divided, many slots": ((2, 5, 2, 17, 130), "all", 0.0, 512),
    "only the user, as in LRML": ((3, 35, 1, 3, 8), "all", 1.0, 3),
    "no references": ((2, 3, 2, 3, 4), "none", 0.5, 512),
}


def make_pairs(sizes: tuple[int, ...], which: str, dtype: Any = np.float64) -> MemoryPairs:
    """Draw pairs whose parts do not depend on each other, so that each has its own gradient."""
    users, items, places, slots, dim = sizes
    rng = np.random.default_rng(0)
    mask = rng.random((users, places)) < {"all": 1.0, "some": 0.6, "none": 0.0}[which]
    mask[1] &= which != "some"
    shapes = [(items, dim), (users, places, dim), (dim, slots), (users, slots), (items, slots)]
    drawn = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    root = rng.normal(size=(slots, slots)).astype(dtype)
    pairs = MemoryPairs(*drawn[:2], mask, *drawn[2:], gram=root @ root.T)
    return pairs._replace(key=pairs.key * dtype(dim**-0.5))


def oracle(pairs: MemoryPairs, beta: float) -> np.ndarray:
    """Compute the change pair by pair, reference by reference."""
    change = np.zeros((len(pairs.rows), len(pairs.items)))
    for user, query in enumerate(pairs.user_query):
        for item, vector in enumerate(pairs.items):
            slots = []
            for row in pairs.rows[user][pairs.mask[user]]:
                logits = (vector * row) @ pairs.key
                exps = np.exp(logits - logits.max())
                slots.append(exps / exps.sum())
            if slots:
                exps = np.exp([s @ query for s in slots])
                c = (exps / exps.sum() ** beta) @ np.array(slots)
                gap = query - pairs.item_query[item]
                change[user, item] = c @ (2 * gap + pairs.gram @ c)
    return change


def as_jax(pairs: MemoryPairs) -> MemoryPairs:
    return MemoryPairs(*map(jnp.asarray, pairs))


def weight_of(pairs: MemoryPairs) -> np.ndarray:
    shape = len(pairs.rows), len(pairs.items)
    return np.random.default_rng(7).normal(size=shape).astype(pairs.items.dtype)


def value_and_gradient(
    change: Change, pairs: MemoryPairs, beta: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Compute changes, and the gradient of their sum, each times a number."""
    weight = weight_of(pairs)

    def total(arrays: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        found = change(pairs._replace(**arrays), beta)
        return (found * weight).sum(), found

    arrays = {name: getattr(pairs, name) for name in ARRAYS}
    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(arrays)
    return found, gradient


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@BOTH
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("float64")
def test_values_and_gradients_are_those_of_loops(
    case: str, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient by finite differences of the loops, and entry by entry by the definition."""
    sizes, which, beta, programs = CASES[case]
    monkeypatch.setattr(gpu, "_PROGRAMS", programs)
    pairs = make_pairs(sizes, which)
    found, gradient = value_and_gradient(change, as_jax(pairs), beta)
    np.testing.assert_allclose(found, oracle(pairs, beta), rtol=1e-10, atol=1e-10)

    _, expected = value_and_gradient(functional.relation_change, as_jax(pairs), beta)
    rng, step = np.random.default_rng(1), 1e-5
    for name in ARRAYS:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-8, atol=1e-10)
        direction = rng.normal(size=getattr(pairs, name).shape)
        ahead, behind = (
            oracle(pairs._replace(**{name: getattr(pairs, name) + way * direction}), beta)
            for way in (step, -step)
        )
        slope = np.sum(weight_of(pairs) * (ahead - behind)) / (2 * step)
        scale = np.abs(gradient[name]).max()
        np.testing.assert_allclose(
            np.sum(gradient[name] * direction), slope, rtol=1e-6, atol=1e-6 * scale
        )


@BOTH
def test_float32_stays_float32(change: Change) -> None:
    pairs = make_pairs((3, 40, 4, 5, 20), "some", np.float32)
    found, gradient = value_and_gradient(change, as_jax(pairs), 1.0)
    np.testing.assert_allclose(found, oracle(pairs, 1.0), rtol=1e-4, atol=1e-4)
    assert {x.dtype.name for x in (found, *gradient.values())} == {"float32"}


@BOTH
@pytest.mark.usefixtures("float64")
def test_change_is_that_of_the_models_distance(change: Change) -> None:
    """`||u + r - i||^2 - ||u - i||^2`, with `r` as the attention over references makes it."""
    rng = np.random.default_rng(2)
    users, items, rows = (jnp.asarray(rng.normal(size=s)) for s in [(3, 6), (7, 6), (3, 4, 6)])
    key, memory = jnp.asarray(rng.normal(size=(6, 5))), jnp.asarray(rng.normal(size=(5, 6)))
    mask = jnp.asarray(rng.random((3, 4)) < 0.6)
    found = change(memory_pairs(users, items, rows, mask, key, memory), 0.5)

    slots = functional.memory_attention(items[None, :, None], rows[:, None], key)
    references = functional.References(slots, mask[:, None], memory)
    relation = functional.attend(users[:, None], [references], 0.5)
    gap = users[:, None] - items[None]
    expected = squared_distance(gap + relation, jnp.zeros_like(gap)) - jnp.sum(gap**2, axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@BOTH
def test_large_logits_and_what_is_masked_leave_numbers_finite(change: Change) -> None:
    pairs = make_pairs((3, 5, 4, 3, 6), "some", np.float32)
    pairs = pairs._replace(key=1000 * pairs.key, user_query=1000 * pairs.user_query)
    expected, _ = value_and_gradient(functional.relation_change, as_jax(pairs), 1.0)
    pairs.rows[~pairs.mask] = np.nan
    found, gradient = value_and_gradient(change, as_jax(pairs), 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(x).all() for x in gradient.values())
    assert not np.any(np.asarray(gradient["rows"])[~pairs.mask])


def test_nothing_to_relate() -> None:
    for sizes in ((2, 0, 3, 4, 5), (2, 3, 0, 4, 5)):
        pairs = as_jax(make_pairs(sizes, "all", np.float32))
        np.testing.assert_array_equal(kernels.relation_change(pairs), np.zeros(sizes[:2]))


# --- what is held, and where it runs -------------------------------------------------------------


def abstract_pairs(users: int, items: int, places: int, slots: int, dim: int) -> MemoryPairs:
    shapes = MemoryPairs(
        (items, dim),
        (users, places, dim),
        (users, places),
        (dim, slots),
        (users, slots),
        (items, slots),
        (slots, slots),
    )
    floats = {name: jax.ShapeDtypeStruct(getattr(shapes, name), jnp.float32) for name in ARRAYS}
    return MemoryPairs(mask=jax.ShapeDtypeStruct(shapes.mask, jnp.bool_), **floats)


def gradient_of(change: Callable[[MemoryPairs], jax.Array]) -> Callable[..., Any]:
    def total(arrays: dict[str, jax.Array], mask: jax.Array) -> jax.Array:
        return change(MemoryPairs(mask=mask, **arrays)).sum()

    return jax.value_and_grad(total)


def arguments_of(pairs: MemoryPairs) -> tuple[dict[str, Any], Any]:
    return {name: getattr(pairs, name) for name in ARRAYS}, pairs.mask


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


@pytest.mark.parametrize("change", [gpu.relation_change_on_gpu, relation_change_by_tiles])
def test_neither_pass_holds_slot_weights_of_all_pairs(change: Change) -> None:
    """Not even `[u, n, M]`, by far."""
    users, items, places, slots, _ = sizes = (256, 20_000, 50, 20, 100)

    def largest(change: Change) -> int:
        function = gradient_of(functools.partial(change, beta=0.5))
        return max(sizes_in(jax.make_jaxpr(function)(*arguments_of(abstract_pairs(*sizes))).jaxpr))

    assert largest(functional.relation_change) >= users * items * places * slots
    assert largest(change) < users * items * slots / 2


@pytest.mark.parametrize("precision", ["highest", "tf32x3", "tf32"])
@pytest.mark.parametrize("sizes", [(32, 3260, 50, 20, 100), (5, 7, 1, 64, 256)], ids=str)
def test_programs_are_lowered_to_triton(precision: str, sizes: tuple[int, ...]) -> None:
    if jaxlib.version.__version_info__ > (0, 10, 2) and not any(
        find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)
    ):
        pytest.skip("from jaxlib 0.10.3 on Triton's compiler comes with JAX's plugin for CUDA")
    pairs = abstract_pairs(*sizes)
    assert gpu.fits(pairs)

    def change(pairs: MemoryPairs) -> jax.Array:
        return gpu.relation_change_on_gpu(pairs, 0.5, precision)

    traced = jax.jit(gradient_of(change)).trace(*arguments_of(pairs))
    lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert len(re.findall(r"custom_call @\S*triton", lowered)) == 2


def test_where_programs_of_a_gpu_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an NVIDIA GPU, for sizes that fit, and nowhere else in silence."""
    pairs = as_jax(make_pairs((2, 3, 2, 3, 4), "some", np.float32))
    monkeypatch.setattr(gpu, "has_gpu", lambda: False)
    expected = relation_change_by_tiles(pairs, 1.0)
    np.testing.assert_array_equal(kernels.relation_change(pairs), expected)
    with pytest.raises(InputError, match="runs on NVIDIA GPUs, not on ") as raised:
        kernels.relation_change(pairs, implementation="pallas")
    assert "\n" not in str(raised.value)

    monkeypatch.setattr(gpu, "has_gpu", lambda: True)
    monkeypatch.setattr(gpu, "relation_change_on_gpu", lambda *arguments: expected + 1)
    for implementation in ("auto", "pallas"):
        found = kernels.relation_change(pairs, implementation=implementation)
        np.testing.assert_array_equal(found, expected + 1)
    np.testing.assert_array_equal(kernels.relation_change(pairs, implementation="xla"), expected)

    large = as_jax(make_pairs((2, 3, 2, 65, 4), "all", np.float32))
    found = kernels.relation_change(large)
    np.testing.assert_array_equal(found, relation_change_by_tiles(large, 1.0))
    with pytest.raises(InputError, match="of 4 features, 65 slots and 2 users"):
        kernels.relation_change(large, implementation="pallas")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there may be a GPU")
def test_a_cpu_is_no_gpu() -> None:
    assert not gpu.has_gpu()


@pytest.mark.skipif(not gpu.has_gpu(), reason="needs an NVIDIA GPU")
def test_a_gpu_computes_what_the_definition_says() -> None:
    pairs = as_jax(make_pairs((32, 3260, 50, 20, 100), "some", np.float32))
    found, gradient = value_and_gradient(gpu.relation_change_on_gpu, pairs, 1.0)
    value, expected = value_and_gradient(relation_change_by_tiles, pairs, 1.0)
    np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-3)
    for name in ARRAYS:
        bound = 1e-4 * np.abs(expected[name]).max()
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-3, atol=bound)
