"""Hand a trained model over to other programs: tables, ids, a compiled function, an index."""

from hlr_jax.exporting.export import Exported, export

__all__ = ["Exported", "export"]
