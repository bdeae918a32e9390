"""A service over HTTP: recommendations, similar items, explanations and new users.

`make_app` makes a FastAPI application of a trained model or a baseline; `hlr-jax serve` runs it.
Needs the extra `serve`.
"""

from hlr_jax.serving.app import Limits, make_app

__all__ = ["Limits", "make_app"]
