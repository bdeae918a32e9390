"""A service over HTTP: recommendations, similar items, explanations and new users.

`make_app` makes a FastAPI application of a trained model or a baseline, and `make_server` what runs
it, as `hlr-jax serve` does.
Needs the extra `serve`.
"""

from hlr_jax.serving.app import Limits, make_app
from hlr_jax.serving.server import make_server

__all__ = ["Limits", "make_app", "make_server"]
