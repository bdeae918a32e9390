"""The best scores in two stages: the places that a stable sort of all of them gives."""

import jax
import numpy as np
import pytest

from hlr_jax.kernels import sizes, top_k


@pytest.fixture(autouse=True)
def _accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "is_cpu", lambda: False)


@pytest.mark.parametrize("kinds", [1, 3, 40, 10**6])
@pytest.mark.parametrize(
    ("width", "k", "group"),
    [(64, 1, 8), (64, 3, 4), (64, 16, 2), (64, 17, 1), (64, 64, 1), (48, 2, 4), (7, 1, 1)],
)
def test_two_stages_keep_what_is_best_and_its_order(width: int, k: int, group: int, kinds: int):
    """Of equal scores the first; with many -inf, in some rows nothing else."""
    assert sizes.top_k_group(width, k) == group
    generator = np.random.default_rng(width + k)
    scores = generator.integers(0, kinds, (50, width)).astype(np.float32)
    hidden = generator.random(scores.shape) < np.linspace(0, 1, 50)[:, None]
    scores[hidden] = -np.inf
    places, left = jax.jit(top_k.candidates, static_argnums=1)(scores, k)
    assert left.shape == places.shape == (50, width if group == 1 else k * group)
    np.testing.assert_array_equal(np.take_along_axis(scores, np.asarray(places), 1), left)
    assert (np.diff(places) > 0).all()
    best, where = jax.lax.top_k(left, k)
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(places), where, 1), wanted)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, wanted, 1))


def test_a_cpu_looks_at_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "is_cpu", lambda: True)
    assert sizes.top_k_group(512, 10) == 1
