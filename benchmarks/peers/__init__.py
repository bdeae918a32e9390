"""PyTorch programs that hlr_jax is compared with."""
