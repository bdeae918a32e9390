"""Import the packages and modules that register further components, each once."""

from collections.abc import Sequence

from hlr_jax.errors import InputError

_ENTRY_POINTS = "the entry points"
_loaded: set[str] = set()


def load(imports: Sequence[str] = ()) -> None:
    """Import what registers components: installed entry points, and the named modules.

    Args:
      imports: as in `config.imports`.

    Raises:
      InputError: one cannot be imported, or registers a name that is taken.
    """
    new = [name for name in (_ENTRY_POINTS, *imports) if name not in _loaded]
    if not new:
        return
    # It imports JAX, which --help need not wait for.
    from hlr_jax import registry

    for name in imports:
        # A relative name, or a path, is no name of a module.
        if not all(part.isidentifier() for part in name.split(".")):
            raise InputError(
                f"--import={name}: give the name of a module, as in --import=my_module"
            )
    # Marked before, because a module that is imported may itself ask for this.
    _loaded.update(new)
    try:
        registry.load_plugins([name for name in new if name != _ENTRY_POINTS])
    except InputError:
        _loaded.difference_update(new)
        raise
