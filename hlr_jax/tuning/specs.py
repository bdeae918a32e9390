"""Read the specs of what a sweep varies: `field=low:high` and the other forms."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from typing import Any

from hlr_jax.config import Config, build, renamed
from hlr_jax.errors import InputError
from hlr_jax.tuning.search_space import NAMES, Choice, Range, Space, Value, text_of

_FORMS = "field=low:high, field=log:low:high, field=int:low:high or field=choice:value,value"
# Fields that cannot be varied, and why.
_FIXED = {
    "training.selection_metric": "what selects is --objective, the same for all trials",
    "training.refit": "trials are not refitted; give --config.training.refit=True for the best one",
}


def parse(specs: Sequence[str]) -> Space:
    """Read what some `--vary` flags describe; fields that name classes first.

    Whether other fields are used depends on these classes.

    Raises:
      InputError: a spec that cannot be read, of an unknown field or one that cannot be varied, or
        a field twice.
    """
    if not specs:
        raise InputError(f"--vary: name at least one field to vary, as {_FORMS}")
    kinds = _kinds()
    space: dict[str, Range | Choice] = {}
    for spec in specs:
        field, equals, values = spec.partition("=")
        try:
            if not equals:
                raise InputError(f"write {_FORMS}")
            _check_field(field, kinds, space)
            space[field] = _parse_values(field, values, kinds[field])
        except InputError as error:
            raise InputError(f"--vary={spec}: {error}") from None
    return dict(sorted(space.items(), key=lambda one: (one[0] not in NAMES, one[0])))


def _check_field(field: str, kinds: dict[str, tuple[type, ...]], space: Space) -> None:
    """Raise InputError unless this field exists and can be varied, and is not yet."""
    if field not in kinds:
        new = renamed.explain(field)
        if new:
            raise InputError(new)
        close = difflib.get_close_matches(field, kinds, n=1)
        hint = f"did you mean {close[0]}?" if close else "see hlr-jax fields"
        raise InputError(f"there is no field {field!r}; {hint}")
    if field in _FIXED:
        raise InputError(_FIXED[field])
    if not kinds[field]:
        raise InputError(f"{field} is a list; vary a field of single values")
    if field in space:
        raise InputError(f"{field} is varied twice; give one of these flags")


def _kinds() -> dict[str, tuple[type, ...]]:
    """List the types that each field takes; none for one that takes a list."""
    kinds: dict[str, tuple[type, ...]] = {}
    for section, cls in typing.get_type_hints(Config).items():
        if not dataclasses.is_dataclass(cls):
            kinds[section] = _types(cls)
            continue
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kinds[f"{section}.{field.name}"] = _types(hints[field.name])
    for section in build.NAME_FIELDS:
        del kinds[f"{section}.options"]
        for name, default in build.all_options(section).items():
            kinds[f"{section}.{name}"] = _types(type(default))
    return kinds


def _types(hint: Any) -> tuple[type, ...]:
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(t for t in allowed if t in (bool, int, float, str, type(None)))


def _parse_values(field: str, text: str, kinds: tuple[type, ...]) -> Range | Choice:
    """Read a range or a choice; raises InputError, which says what would be right."""
    form, _, rest = text.partition(":")
    if form == "choice":
        values = tuple(_parse_value(part, kinds) for part in rest.split(","))
        if len(set(map(text_of, values))) < max(2, len(values)):
            raise InputError("choose between at least two values, each named once")
        return Choice(values)
    numbers = (rest if form in ("log", "int") else text).split(":")
    if not {int, float} & set(kinds):
        for number in numbers:
            renamed.check_value(field, number)
        example = "true,false" if bool in kinds else "word,word"
        raise InputError(f"it takes no numbers; write field=choice:{example}")
    if len(numbers) != 2:
        raise InputError(f"write {_FORMS}")
    kind = (int,) if form == "int" or float not in kinds else (float,)
    low, high = (_parse_value(number, kind) for number in numbers)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if not low < high:
        raise InputError("the lower end comes first, and the ends differ")
    if form == "log" and low <= 0:
        raise InputError("a range that is searched by its logarithm begins above 0")
    return Range(low, high, log=form == "log")


def _parse_value(text: str, kinds: tuple[type, ...]) -> Value:
    words: dict[str, Value] = {}
    if bool in kinds:
        words |= {"true": True, "false": False}
    if type(None) in kinds:
        words |= {"none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        if kind in kinds:
            try:
                value = kind(text)
            except ValueError:
                continue
            if math.isfinite(value):
                return value
    if str in kinds:
        return text
    names = {int: "a whole number", float: "a number"}
    wanted = [names[float if float in kinds else int]] if {int, float} & set(kinds) else []
    raise InputError(f"{text!r} is not {' or '.join([*wanted, *words])}")
