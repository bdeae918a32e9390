"""What `hlr-jax fields` shows: types, defaults and meanings, read from the sources."""

import dataclasses

import pytest

from hlr_jax import baselines
from hlr_jax.config import Config, as_dict, build, flat, settings
from hlr_jax.config.fields import SECTIONS
from hlr_jax.functional.losses import Loss
from hlr_jax.registry import is_own

COMPONENTS = [
    (section, name)
    for section in build.NAME_FIELDS
    for name in build.registry(section).names()
    if is_own(build.registry(section).get(name))
]


def test_every_field_is_listed_with_a_meaning():
    found = [*settings.of_config(), *(s for name in SECTIONS for s in settings.of_section(name))]
    plain = as_dict(Config())
    options = {f"{part}.{name}" for part in build.NAME_FIELDS for name in build.all_options(part)}
    fields = {
        f"{section}.{name}"
        for section, values in plain.items()
        if section in SECTIONS
        for name in values
    }
    assert {s.name for s in found} == (fields - options) | {"seed", "imports"}
    assert {s.name: s.default for s in found}.items() <= flat(Config()).items()
    assert not [s.name for s in found if not s.meaning]


@pytest.mark.parametrize(("section", "name"), COMPONENTS)
def test_every_option_is_listed_with_a_meaning(section, name):
    found = settings.of_component(section, name)
    known = build.options(section, name)
    assert {s.name.removeprefix(f"{section}."): s.default for s in found} == known
    assert [s.kind for s in found] == [type(default).__name__ for default in known.values()]
    assert not [s.name for s in found if not s.meaning]


@pytest.mark.parametrize("method", baselines.METHODS.values(), ids=lambda cls: cls.__name__)
def test_every_hyperparameter_of_a_baseline_is_listed_with_a_meaning(method):
    found = settings.of_dataclass(method)
    assert {s.name: s.default for s in found} == dataclasses.asdict(method())
    assert not [s.name for s in found if not s.meaning]


def test_meanings_stand_above_after_or_in_the_text_of_a_class_or_its_base():
    class Base:
        """A text.

        Attributes:
          listed: here,
            and on.
          one, other: both.
          changed: before.
        """

        listed: int = 1
        one: int = 1
        other: int = 1
        changed: int = 1
        # Above,
        # in two lines.
        above: float = 0.5

        # Of nothing.

        none: int = 1

    class Derived(Base):
        after: str = "λ"  # after it
        tall: tuple[int, ...] = (
            1,
            2,
        )  # after its end
        changed: int = 2  # now

    assert settings.meanings(Derived) == {
        "listed": "here, and on.",
        "one": "both.",
        "other": "both.",
        "changed": "now",
        "above": "Above, in two lines.",
        "after": "after it",
        "tall": "after its end",
    }
    assert settings.about(Base) == "A text."


def test_types_are_written_as_in_python():
    kinds = {s.name: str(s) for name in SECTIONS for s in settings.of_section(name)}
    assert kinds["data.core"] == "data.core: int | None = None"
    assert kinds["evaluation.cutoffs"] == "evaluation.cutoffs: tuple of int = (10,)"
    assert kinds["loss.covariance"] == "loss.covariance: float = 0.0"
    assert kinds["loss.reduction"] == "loss.reduction: str = 'sum'"


def test_a_class_without_a_source_has_the_meanings_of_its_text():
    names: dict[str, type] = {"Loss": Loss}
    text = "'''A text.\n\n    Attributes:\n      weight: of it.\n    '''"
    exec(f"class Own(Loss):\n    {text}\n    weight: float = 1.0  # not read\n", names)
    assert settings.meanings(names["Own"])["weight"] == "of it."
