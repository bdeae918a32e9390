"""One page to look at: how a model was trained, how good it is and for whom, what it learned."""

from hlr_jax.reporting.report import report

__all__ = ["report"]
