"""Data sets on the host: files and public data sets in, compressed rows of interactions out.

`load` takes a configuration to a `Dataset`, whose train, validation and test parts are
`Interactions`. The steps between are modules of their own: `readers` (files), `preprocessing`
(filter, merge, encode) and `splits`.
"""

from hlr_jax.data.datasets import Dataset, load
from hlr_jax.data.interactions import Interactions

__all__ = ["Dataset", "Interactions", "load"]
