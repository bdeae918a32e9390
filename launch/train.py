"""The program `hlr-jax train`, of this folder's clone."""

from hlr_jax import programs

if __name__ == "__main__":
    programs.run("train")
