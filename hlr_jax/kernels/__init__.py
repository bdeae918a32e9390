"""The numbers of `hlr_jax.functional`, computed faster; each tested against its definition."""

from hlr_jax.kernels.history_attention import history_attention
from hlr_jax.kernels.relation_change import relation_change

__all__ = ["history_attention", "relation_change"]
