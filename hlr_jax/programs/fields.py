"""List every setting of a run, with its type, default and meaning.

  hlr-jax fields                  (all sections; then what can be asked for)
  hlr-jax fields hlr softmax      (the options of a model and of a loss)
  hlr-jax fields ease             (the hyperparameters of a baseline)
  hlr-jax fields training         (one section)
  hlr-jax fields mine --import=my_module

Models, geometries, losses and samplers have options of their own, which stand among the fields of
their section: an option `slots` of a model is the flag --config.model.slots.
"""

import difflib
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from hlr_jax import facts
from hlr_jax.config import build, settings
from hlr_jax.config.fields import SECTIONS
from hlr_jax.config.settings import Setting
from hlr_jax.errors import InputError


def main(names: Sequence[str]) -> None:
    """Print the settings of a run, or of what is named."""
    found = [text for name in names for text in _asked(name)] if names else _everything()
    facts.show("\n\n".join(found))


def _everything() -> Iterator[str]:
    yield (
        "The settings of a run. Each is a flag, as in --config.training.epochs=20, and an argument "
        "in\nPython, as in TrainingConfig(epochs=20)."
    )
    yield _listed(settings.of_config())
    for section in SECTIONS:
        yield from _section(section)
    yield "These have settings of their own, which hlr-jax fields NAME lists:"
    yield "\n".join(
        textwrap.fill(
            " ".join(names), 100, initial_indent=f"  {kind:<11}", subsequent_indent=" " * 13
        )
        for kind, names in _named().items()
    )


def _asked(name: str) -> Iterator[str]:
    """Describe all that have a name.

    Raises:
      InputError: nothing has.
    """
    if name in SECTIONS:
        yield from _section(name)
    for section, field in build.NAME_FIELDS.items():
        registry = build.registry(section)
        if name in registry.names():
            cls = registry.get(name)
            yield f"{name}, a {registry.kind}: --config.{section}.{field}={name}"
            yield from _described(cls, settings.of_component(section, name))
            yield f"  Every {registry.kind} has these fields too: hlr-jax fields {section}"
    methods = _methods()
    if name in methods:
        yield f"{name}, a baseline: hlr-jax baseline --name={name} tunes these, or takes --set"
        yield from _described(methods[name], settings.of_dataclass(methods[name]))
    known = [*SECTIONS, *(name for names in _named().values() for name in names)]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "hlr-jax fields lists what there is"
        raise InputError(f"fields {name}: there is no section or component of this name; {hint}")


def _section(section: str) -> Iterator[str]:
    yield f"{section}: {settings.about(SECTIONS[section])}"
    yield _listed(settings.of_section(section))
    if section in build.NAME_FIELDS:
        kind, field = build.registry(section).kind, build.NAME_FIELDS[section]
        yield f"  And the options of the {kind} that {section}.{field} names."


def _described(cls: type, found: Sequence[Setting]) -> Iterator[str]:
    yield textwrap.indent(settings.about(cls), "  ")
    yield _listed(found) or "  It has none."


def _listed(found: Sequence[Setting]) -> str:
    return "\n".join(line for setting in found for line in (f"  {setting}", *_wrapped(setting)))


def _wrapped(setting: Setting) -> list[str]:
    return textwrap.wrap(setting.meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _named() -> Mapping[str, Sequence[str]]:
    """List the names of all that have settings of their own, by kind."""
    registries = [build.registry(section) for section in build.NAME_FIELDS]
    return {registry.kind: registry.names() for registry in registries} | {
        "baseline": list(_methods())
    }


def _methods() -> Mapping[str, type]:
    from hlr_jax import baselines

    return baselines.METHODS
