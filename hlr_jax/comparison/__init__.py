"""Compare trained models and baselines user by user: means, tests, a table and a figure."""

from hlr_jax.comparison.procedure import compare
from hlr_jax.comparison.result import Comparison, Entry, Pair

__all__ = ["Comparison", "Entry", "Pair", "compare"]
