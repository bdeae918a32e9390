"""Build the components that a configuration names: model, geometry, loss and sampler."""

import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hlr_jax.config import plugins
from hlr_jax.config.components import GeometryConfig, LossConfig, ModelConfig, SamplingConfig
from hlr_jax.config.fields import Config
from hlr_jax.config.values import field_names, typed

if TYPE_CHECKING:
    from hlr_jax.functional.geometry import Geometry
    from hlr_jax.functional.losses import Loss
    from hlr_jax.models.relation import Relation
    from hlr_jax.registry import Registry

_SECTIONS = {
    "model": ModelConfig,
    "geometry": GeometryConfig,
    "sampling": SamplingConfig,
    "loss": LossConfig,
}
# The field that holds the registered name.
NAME_FIELDS = {"model": "name", "geometry": "name", "sampling": "negatives", "loss": "name"}


def build_model(config: Config) -> "Relation":
    """Build the model, in its geometry.

    Raises:
      InputError: unknown model or option, or a value out of range.
    """
    fixed = {"dim": config.model.dim, "geometry": build_geometry(config)}
    return typing.cast("Relation", build_component(config, "model", **fixed))


def build_geometry(config: Config) -> "Geometry":
    """Build the geometry; raises InputError as `build_model` does."""
    return typing.cast("Geometry", build_component(config, "geometry"))


def build_loss(config: Config) -> "Loss":
    """Build the loss; raises InputError as `build_model` does."""
    return typing.cast("Loss", build_component(config, "loss"))


def build_component(config: Config, section: str, **fixed: Any) -> Any:
    """Build what a section names; raises InputError as `build_model` does.

    Args:
      fixed: arguments of its class that are no options.
    """
    plugins.load(config.imports)
    fields = getattr(config, section)
    chosen = typed_options(section, fields.options)
    return registry(section).build(registered_name(section, fields), chosen, **fixed)


def build_all(config: Config) -> tuple[Any, ...]:
    """Build the model, its geometry, the loss and the sampler.

    Raises:
      InputError: one of them cannot be built from its options.
    """
    model = build_model(config)
    others = (build_component(config, section) for section in ("loss", "sampling"))
    return model, model.geometry, *others


def registry(section: str) -> "Registry[Any]":
    """Return the registry of a section's classes."""
    from hlr_jax import registry as registries  # It imports JAX, which --help need not wait for.

    return registries.find(section)


def registered_name(section: str, fields: Any) -> str:
    """Return the name of the registered class that a section holds."""
    return str(getattr(fields, NAME_FIELDS[section]))


def options(section: str, name: str) -> dict[str, Any]:
    """List the options of a registered class, with their defaults.

    Raises:
      InputError: there is no class of that name.
    """
    return registry(section).options(name)


def all_options(section: str) -> dict[str, Any]:
    """List the options of all registered classes of a section, with their defaults.

    Raises:
      InputError: one of them has the name of another field of the section.
    """
    from hlr_jax import registry as registries

    found, fields = registry(section), field_names(_SECTIONS[section])
    for name in found.names():
        for option in found.options(name):
            if option in fields:
                raise registries.option_is_field(found.get(name), option)
    return found.all_options()


def typed_options(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values of options to the types of their defaults; unknown options are kept.

    Raises:
      InputError: a value has another type, or is not finite.
    """
    defaults = all_options(section)
    return {
        name: _typed(f"{section}.{name}", defaults[name], value) if name in defaults else value
        for name, value in values.items()
    }


def _typed(field: str, default: Any, value: Any) -> Any:
    if isinstance(default, tuple) and isinstance(value, list):
        value = tuple(value)
    return typed(field, type(default), value)
