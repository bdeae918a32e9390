"""The numbers of `hlr_jax.functional`, computed faster; each tested against its definition."""

from hlr_jax.kernels.history_attention import history_attention

__all__ = ["history_attention"]
