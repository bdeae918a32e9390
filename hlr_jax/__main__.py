"""`python -m hlr_jax` is `hlr-jax`."""

from hlr_jax.programs import main

if __name__ == "__main__":
    main()
