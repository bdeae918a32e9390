"""The program `hlr-jax cache`, of this folder's clone."""

from hlr_jax import programs

if __name__ == "__main__":
    programs.run("cache")
