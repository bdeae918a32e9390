"""The contract of a loss."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hlr_jax.functional.losses import Loss, NegativeDistances
from hlr_jax.testing.expect import Expect, as_arrays, check_gradient, check_traced, instance

_ROWS, _NEGATIVES, _ITEMS = 6, 5, 100


def check_loss(loss: Loss | type[Loss]) -> None:
    """Raise AssertionError where a loss breaks its contract.

    - One number of single precision for each positive, in any leading axes; so has `num_terms`.
    - Finite, as its gradient, also for large distances and where no negative counts.
    - What stands at masked negatives changes neither value nor gradient.
    - The gradient is that of finite differences, unless it `holds_constant` a part.
    - With `shares_negatives`, `[b, 1, K]` negatives serve `[b, P]` positives.
    - Float options are traced: another value needs no compilation.

    Args:
      loss: with its options; a class stands for the default ones.
    """
    made: Loss = instance(loss)
    expect = Expect(made)
    with expect.traceable():
        _check(expect, made)


def _check(expect: Expect, made: Loss) -> None:
    positive, values, mask = _distances()
    check_traced(expect, made, lambda loss: _loss(loss, positive, values, mask))
    found = _compiled(made, positive, values, mask)
    for value, what in zip(found, ("the loss", "num_terms"), strict=True):
        expect.shape(value, (_ROWS,), what)
        expect.finite(value, f"{what}, also where no negative counts")
    expect.that(bool((found[1] >= 0).all()), "num_terms is negative")
    _check_axes(expect, made, found)
    _check_masks(expect, made)
    if not made.holds_constant:
        _check_gradient(expect, made)


def _distances() -> tuple[Array, Array, Array]:
    """Of positives, of negatives, and which of these count: in the first row all, the last none."""
    rng = np.random.default_rng(0)
    positive, values = rng.uniform(0, 2, _ROWS), rng.uniform(0, 2, (_ROWS, _NEGATIVES))
    mask = rng.random(values.shape) < 0.6
    mask[0], mask[-1] = True, False
    return as_arrays(positive), as_arrays(values), jnp.asarray(mask)


def _loss(loss: Loss, positive: Any, values: Any, mask: Array) -> tuple[Array, Array]:
    negatives = NegativeDistances(values, mask, _ITEMS)
    return loss(positive, negatives), loss.num_terms(positive, negatives)


_compiled = jax.jit(_loss)


def _check_axes(expect: Expect, loss: Loss, flat: tuple[Array, Array]) -> None:
    positive, values, mask = _distances()
    deep = _compiled(
        loss,
        positive.reshape(2, 3),
        values.reshape(2, 3, _NEGATIVES),
        mask.reshape(2, 3, _NEGATIVES),
    )
    for x, y in zip(deep, flat, strict=True):
        expect.close(x, y.reshape(2, 3), "with two leading axes instead of one")
    if not loss.shares_negatives:
        return
    several = jnp.stack([positive, positive + 0.25, 0.5 * positive], axis=1)
    found = _compiled(loss, several, values[:, None], mask[:, None])[0]
    expect.shape(found, several.shape, "the loss of positives [b, P] with negatives [b, 1, K]")
    for column in range(3):
        wanted = _compiled(loss, several[:, column], values, mask)[0]
        expect.close(found[:, column], wanted, "shares_negatives, but positives do not broadcast")


def _check_masks(expect: Expect, loss: Loss) -> None:
    positive, values, mask = _distances()

    @jax.jit
    def value_and_gradient(positive: Any, values: Any, mask: Array) -> Any:
        def total(positive: Any, values: Any) -> tuple[Array, Array]:
            losses = _loss(loss, positive, values, mask)[0]
            return losses @ jnp.arange(1.0, _ROWS + 1), losses

        return jax.value_and_grad(total, (0, 1), has_aux=True)(positive, values)

    (_, wanted), gradient = value_and_gradient(positive, values, mask)
    expect.finite(gradient, "the gradient, also where no negative counts")
    of_masked = np.asarray(gradient[1])[~np.asarray(mask)]
    expect.that(not of_masked.any(), "the gradient of a masked negative is not 0")
    for other in (0.0, 1e6):
        dirty = jnp.where(mask, values, other)
        (_, found), other_gradient = value_and_gradient(positive, dirty, mask)
        expect.close(found, wanted, f"with {other:g} at masked negatives, the loss", 1e-6)
        what = f"with {other:g} at masked negatives, the gradient"
        expect.close(other_gradient, gradient, what, 1e-6)
    for scale in (0.0, 1e4):
        (_, found), of_far = value_and_gradient(scale * positive, scale * values, mask)
        expect.finite((found, of_far), f"loss and gradient of distances up to {2 * scale:g}")


def _check_gradient(expect: Expect, loss: Loss) -> None:
    with jax.enable_x64(True):
        positive, values, mask = _distances()
        weights = np.arange(1.0, _ROWS + 1)

        @jax.jit
        def total(distances: tuple[Array, Array]) -> Array:
            return jnp.sum(_loss(loss, *distances, mask)[0] * weights)

        gradient = jax.jit(jax.grad(total))((positive, values))
        check_gradient(expect, total, (positive, values), "the loss", gradient)
