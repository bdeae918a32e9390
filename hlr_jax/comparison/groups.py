"""Put runs together that differ in their seed alone, and name them."""

import itertools
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from hlr_jax.comparison.folders import Measurable
from hlr_jax.errors import InputError

# What remains of `cml_seed1` and `cml_seed2`, or of `cml/2021` and `cml/2022`, is `cml`.
_SEED = re.compile(r"[-_.=]*(seed)?[-_.=]*\d*$", re.IGNORECASE)


class Group(NamedTuple):
    """What is compared as one: runs of a configuration with different seeds.

    Attributes:
      name: what its folders' names have in common.
    """

    name: str
    members: tuple[Measurable, ...]


def grouped(found: Sequence[Measurable]) -> list[Group]:
    """Group runs by configuration, in the order of their first ones.

    Two runs of a configuration with the same seed are not two seeds, but perhaps of code that was
    changed between them: each run of it then stands alone.

    Raises:
      InputError: a folder is given twice.
    """
    paths = [member.folder.resolve() for member in found]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise InputError(f"{found[place].folder}: is given twice; name each folder once")
    by_configuration: dict[tuple[str, str], list[Measurable]] = {}
    for member in found:
        by_configuration.setdefault((member.kind, member.configuration), []).append(member)
    together: list[tuple[Measurable, ...]] = []
    for members in by_configuration.values():
        if len({member.seed for member in members}) == len(members):
            together.append(tuple(members))
        else:
            together += [(member,) for member in members]
    together.sort(key=lambda members: found.index(members[0]))
    names = [_common_name([member.folder for member in members]) for members in together]
    return [
        Group(_unique(name, names, members), members)
        for name, members in zip(names, together, strict=True)
    ]


def _common_name(folders: Sequence[pathlib.Path]) -> str:
    absolute = [folder.absolute() for folder in folders]
    names = [path.name for path in absolute]
    if len(names) == 1:
        return names[0]
    if common := _without_seed(_common_beginning(names)):
        return common
    parents = {path.parent for path in absolute}
    if len(parents) == 1 and not any(map(_without_seed, names)):
        return parents.pop().name
    return ", ".join(names)


def _common_beginning(names: Sequence[str]) -> str:
    together = itertools.takewhile(
        lambda letters: len(set(letters)) == 1, zip(*names, strict=False)
    )
    return "".join(letters[0] for letters in together)


def _without_seed(name: str) -> str:
    return _SEED.sub("", name)


def _unique(name: str, names: Sequence[str], members: Sequence[Measurable]) -> str:
    """Add where its folders lie to a name that is another's too."""
    if names.count(name) == 1:
        return name
    return ", ".join(str(member.folder) for member in members)
