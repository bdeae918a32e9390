"""What hlr_jax is measured against."""
