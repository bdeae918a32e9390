"""Data sets: from files and public data sets to interactions in compressed rows, in host memory.

`load` makes a `Dataset` of a configuration; its train, validation and test parts are
`Interactions`. Each step on the way is a module:

- `resolve`: which files and filters a configuration stands for; `registry` describes the public
  data sets, `locate` finds their files, `fetch` downloads them.
- `raw` and `readers`: read interactions with raw ids from files.
- `preprocessing`: filter, merge duplicates, number users and items.
- `labelling`: label each interaction train, validation or test, by a rule of `splits`.
- `features` and `titles`: read what describes the items.
- `prepared`: store the result, so that the next load is quick.
- `synthetic`: generate the embedded data set.
"""

from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.data.loading import load

__all__ = ["Dataset", "Interactions", "load"]
