"""Check and measure what steps are made of: relations of all pairs, and adding rows up."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from benchmarks import timing
from benchmarks.speed import sections
from benchmarks.speed.gpu_sections import NAMES, PRODUCT, PRODUCT_BFLOAT16, made_up, seconds_of
from benchmarks.speed.sections import Reporter, section
from hlr_jax.functional import TwoSidedPairs, memory_pairs
from hlr_jax.kernels import relation_change
from hlr_jax.kernels.relation_change import has_gpu
from hlr_jax.training.rows import add_rows
from hlr_jax.types import RowIds

# By how much results may differ, as a part of the largest number.
TOLERANCE = 1e-3
# JAX's names of precisions, and the product that a figure is a share of.
_PRECISIONS = {
    "default": ("default", PRODUCT),
    "float32": ("float32", PRODUCT),
    "bfloat16": ("BF16_BF16_F32", PRODUCT_BFLOAT16),
}
# What may be slow comes last.
_FLASH = (("pallas", "default"), ("xla", "default"), ("pallas", "bfloat16"), ("pallas", "float32"))
# Rows whose one-hot factor is made at once.
_TILE = 2**12

# Users `[u, d]`, items `[n, d]`, rows `[u, P, d]`, key `[d, M]` and memory `[M, d]`.
Inputs = tuple[Array, ...]
Program = Callable[..., Any]


def largest_error(found: Any, expected: Any) -> float:
    """Find the largest difference between arrays of a tree, relative to the largest number."""
    errors = jax.tree.map(
        lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max() / np.abs(y).max(), found, expected
    )
    # Which is not a number if any of them is none.
    return float(np.max(jax.tree.leaves(errors)))


def _check(what: str, error: float) -> None:
    if not error <= TOLERANCE:
        raise RuntimeError(f"{what}: off by {error:.2g} of the largest number")


# -------------------------------------------------------------------------------------------------
# Relations of all pairs of users and items.


def _flash_sizes(reporter: Reporter) -> sections.Sizes:
    """Sizes of the kernel; tiny where Pallas imitates the GPU."""
    return reporter.sizes if has_gpu() else sections.TINY


def _flash_inputs(sizes: sections.Sizes) -> tuple[Inputs, Array, Array]:
    """Draw inputs, a mask `[u, P]` and a cotangent `[u, n]`."""
    users, items = sizes.pairs
    dim, slots, places = sizes.dim, sizes.slots, sizes.history_length
    rng = np.random.default_rng(0)

    def drawn(scale: float, *shape: int) -> Array:
        return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

    # So that logits of slots are about 1.
    small = dim**-0.25
    tables = drawn(small, users, dim), drawn(small, items, dim), drawn(small, users, places, dim)
    matrices = drawn(1, dim, slots), drawn(dim**-0.5, slots, dim)
    mask = jnp.asarray(rng.random((users, places)) < 0.9)
    return tables + matrices, mask, drawn(1, users, items)


def _change(model: str, implementation: str, inputs: Inputs, mask: Array) -> Float[Array, "u n"]:
    users, items, rows, key, memory = inputs
    pairs: Any = memory_pairs(users, items, rows, mask, key, memory)
    if model == "hlrpp":
        pairs = TwoSidedPairs(pairs, users)
    if implementation == "pallas" and not has_gpu():
        from hlr_jax.kernels import relation_change_gpu  # Which imports Pallas.

        return relation_change_gpu.relation_change_on_gpu(pairs, 1.0, interpret=True)
    return relation_change(pairs, implementation=implementation)


def _flash_programs(model: str, implementation: str, precision: str) -> tuple[Program, Program]:
    """Compile the change of distances, and the same with its gradient."""
    name, _ = _PRECISIONS[precision]

    def forward(inputs: Inputs, mask: Array, _: Array) -> Array:
        with jax.default_matmul_precision(name):
            return _change(model, implementation, inputs, mask)

    def with_gradient(inputs: Inputs, mask: Array, cotangent: Array) -> Any:
        with jax.default_matmul_precision(name):
            of_inputs = functools.partial(_change, model, implementation, mask=mask)
            value, pull_back = jax.vjp(lambda inputs: of_inputs(inputs=inputs), inputs)
            return value, pull_back(cotangent)

    return jax.jit(forward), jax.jit(with_gradient)


@section("flash kernel: agreement", weight=35)
def flash_agreement(reporter: Reporter) -> None:
    """Check the programs for NVIDIA GPUs against XLA's, values and gradients, in float32."""
    arguments = _flash_inputs(_flash_sizes(reporter))
    errors = {}
    for model in ("hlr", "hlrpp"):
        found, expected = (
            _flash_programs(model, implementation, "float32")[1](*arguments)
            for implementation in ("pallas", "xla")
        )
        for number, what in enumerate(("values", "gradient")):
            name = f"flash kernel, {NAMES[model]}, float32: largest error of {what}"
            errors[name] = largest_error(found[number], expected[number])
            reporter.figure(name, errors[name], "relative", TOLERANCE)
    for name, error in errors.items():
        _check(name, error)


@section("flash kernel: time", weight=50)
def flash_time(reporter: Reporter) -> None:
    """Measure HLR's relations of all pairs, and how far each precision is off."""
    sizes = _flash_sizes(reporter)
    arguments = _flash_inputs(sizes)
    expected = _flash_programs("hlr", "xla", "float32")[1](*arguments)
    users, items = sizes.pairs
    flops = 2.0 * users * items * sizes.history_length * sizes.slots * sizes.dim
    for implementation, precision in _FLASH:
        name = f"flash kernel, {implementation}, {precision}"
        forward, with_gradient = _flash_programs("hlr", implementation, precision)
        error = largest_error(with_gradient(*arguments), expected)
        reporter.figure(f"{name}: largest error", error, "relative")
        rate = reporter.value_of(_PRECISIONS[precision][1])
        # A gradient computes the slot weights again, and is two products for each of theirs.
        for what, program, useful in (
            ("forward", forward, flops),
            ("forward and gradient", with_gradient, 4 * flops),
        ):
            seconds = _seconds_of_call(program, arguments, reporter)
            reporter.figure(f"{name}: {what}", 1e3 * seconds, "ms")
            if rate:
                share = useful / (1e12 * rate * seconds)
                reporter.figure(f"{name}: {what}, share of products", share, "of 1")


def _seconds_of_call(program: Program, arguments: Any, reporter: Reporter) -> float:
    """Time calls that the host starts one after another, and then waits for the last."""

    def run(calls: int) -> None:
        for _ in range(calls):
            result = program(*arguments)
        jax.block_until_ready(result)

    calls = timing.steps_that_take(reporter.sizes.seconds / 4, run)
    times = [timing.seconds(functools.partial(run, calls)) for _ in range(reporter.sizes.rounds)]
    return statistics.median(times) / calls


# -------------------------------------------------------------------------------------------------
# Rows that are added up.

Sums = Float[Array, "i d"]
Ids = Int[Array, "n"]
Rows = Float[Array, "n d"]


def _plainly(sums: Sums, ids: Ids, rows: Rows) -> Sums:
    return sums.at[ids].add(rows)


def _negated(sums: Sums, ids: Ids, rows: Rows) -> Sums:
    return sums.at[ids].add(-rows)


def _by_library(sums: Sums, ids: Ids, rows: Rows) -> Sums:
    """Add negated rows as those of a history; there are no others."""
    places = RowIds(ids[:1], jnp.zeros((1, 0), jnp.int32), ids[None], jnp.zeros(0, jnp.int32))
    none = jnp.zeros((1, rows.shape[1]))
    added = RowIds(none, none[:, None][:, :0], -rows[None], none[:0])
    return add_rows({"user": none, "item": sums}, places, added)["item"]


def _sorted(sums: Sums, ids: Ids, rows: Rows) -> Sums:
    order = jnp.argsort(ids)
    return sums.at[ids[order]].add(rows[order], indices_are_sorted=True)


def _by_segments(sums: Sums, ids: Ids, rows: Rows) -> Sums:
    order = jnp.argsort(ids)
    return sums + jax.ops.segment_sum(
        rows[order], ids[order], num_segments=len(sums), indices_are_sorted=True
    )


def _by_products(sums: Sums, ids: Ids, rows: Rows) -> Sums:
    """Multiply by a matrix of zeros and ones, a tile of rows at a time."""
    size = min(_TILE, len(ids))
    tiles = ids.reshape(-1, size), rows.reshape(-1, size, rows.shape[1])

    def add(sums: Sums, tile: tuple[Ids, Rows]) -> tuple[Sums, None]:
        ids, rows = tile
        return sums + jnp.einsum("ti,td->id", jax.nn.one_hot(ids, len(sums)), rows), None

    return jax.lax.scan(add, sums, tiles)[0]


# And the sign of the rows that they take. What may be very slow comes last.
_FORMS: dict[str, tuple[Callable[[Sums, Ids, Rows], Sums], int]] = {
    "rows": (_plainly, 1),
    "negated rows, as the library does": (_by_library, -1),
    "sorted rows": (_sorted, 1),
    "segments of sorted rows": (_by_segments, 1),
    "products with one-hot rows": (_by_products, 1),
    "negated rows": (_negated, -1),
}


@functools.partial(jax.jit, static_argnames=("form", "num_items"))
def _sums_in_turns(
    form: Callable[[Sums, Ids, Rows], Sums], num_items: int, ids: Ids, rows: Rows, signs: Array
) -> Sums:
    """Add the rows, times a sign, once for each of these signs.

    A turn reads its sign, so that XLA computes nothing once for all turns.
    """

    def turn(number: Array, sums: Sums) -> Sums:
        sign = signs[number]
        none = jnp.where(jnp.abs(sign) > 1, 1, 0)
        return form(sums, ids + none, rows * sign)

    return jax.lax.fori_loop(0, len(signs), turn, jnp.zeros((num_items, rows.shape[1])))


@section("scatter forms", weight=25)
def scatter_forms(reporter: Reporter) -> None:
    """Measure ways to add rows of skewed items up, and check that they agree."""
    sizes, data = reporter.sizes, made_up(*reporter.sizes.small)
    rng = np.random.default_rng(0)
    ids = rng.permutation(data.items)[: sizes.added_rows].astype(np.int32)
    rows = rng.normal(size=(len(ids), sizes.dim)).astype(np.float32)
    expected = np.zeros((data.num_items, sizes.dim))
    np.add.at(expected, ids, sizes.turns * rows.astype(np.float64))
    placed = jax.device_put((ids, rows))
    for name, (form, sign) in _FORMS.items():
        signs = jnp.full(sizes.turns, sign, jnp.float32)
        call = functools.partial(_sums_in_turns, form, data.num_items, *placed, signs)
        _check(f"sum of {name}", largest_error(call(), expected))
        seconds = seconds_of(call, sizes.rounds)
        what = f"sum of {len(ids):,} rows into {data.num_items:,}: {name}"
        reporter.figure(what, 1e6 * seconds / sizes.turns, "us")
