"""The parts of a run of measurements, by name, and what they report."""

import dataclasses
import functools
import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import own_process
from benchmarks.peers import forms

# A figure as it is written: name, value, unit, asked, less_is_better, and a note where needed.
Figure = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
      small, large: users, items and draws of made-up interactions: to train on, and to rank.
      most: no batch is larger.
      dim, slots, history_length: `d`, `M`, `P`.
      users_per_step: of the full catalogue.
      pairs: users and items whose relations are computed at once.
      added_rows: of gradients, to add up.
      turns: of what is repeated on the device.
      product_side, floats: of the products and passes that give the ceilings.
      forms: of PyTorch; None for all that there are.
      chunks: MiB of relations, of PyTorch's rankers.
      ranked: users that PyTorch ranks for with histories.
      seconds, rounds: of timed calls.
      is_local: whether PyTorch is to run in this process.
    """

    small: tuple[int, int, int] = (6_031, 3_260, 415_000)
    large: tuple[int, int, int] = (138_000, 13_000, 7_200_000)
    most: int = 2**17
    dim: int = 100
    slots: int = 20
    history_length: int = 50
    users_per_step: int = 128
    pairs: tuple[int, int] = (32, 3260)
    added_rows: int = 2**17
    turns: int = 100
    product_side: int = 8192
    floats: int = 2**28
    forms: tuple[str, ...] | None = None
    chunks: tuple[int, ...] = (32, 1024)
    ranked: int = 512
    seconds: float = 0.3
    rounds: int = 5
    is_local: bool = False


TINY = Sizes(
    small=(200, 100, 3_000),
    large=(300, 120, 4_000),
    most=64,
    dim=8,
    slots=3,
    history_length=5,
    users_per_step=16,
    pairs=(2, 20),
    added_rows=2**9,
    turns=3,
    product_side=64,
    floats=2**12,
    forms=(forms.EAGER,),
    chunks=(1,),
    ranked=16,
    seconds=0.01,
    rounds=2,
)


class Reporter:
    """Takes the figures of a section as they are found.

    Args:
      earlier: figures of the sections before.
      seconds: that the section has.
    """

    def __init__(self, sizes: Sizes, earlier: list[Figure], seconds: float) -> None:
        self.sizes = sizes
        self._earlier, self._stop = earlier, time.perf_counter() + seconds

    def figure(
        self,
        name: str,
        value: float | None,
        unit: str,
        asked: float | None = None,
        note: str = "",
    ) -> None:
        """Report a figure; None is a value that there is not, and the note says why."""
        figure = {"name": name, "value": value, "unit": unit, "asked": asked}
        figure["less_is_better"] = unit in LESS_IS_BETTER
        own_process.say(figure | ({"note": note} if note else {}))

    def value_of(self, name: str) -> float | None:
        """Look up what an earlier section found, if it did."""
        return next((x["value"] for x in self._earlier if x["name"] == name), None)

    @property
    def left(self) -> float:
        """Seconds that are left to the section."""
        return self._stop - time.perf_counter()


# Of all other units more is better.
LESS_IS_BETTER = ("s", "ms", "us", "GiB", "relative")


class Section(NamedTuple):
    """A part of a run.

    Attributes:
      run: measures, and reports.
      weight: its share of the time that is left, against the weights of those after it.
      is_alone: whether it needs a process of its own, whose peak memory is its own.
    """

    run: Callable[[Reporter], None]
    weight: float
    is_alone: bool = False


SECTIONS: dict[str, Section] = {}


def section(name: str, weight: float, is_alone: bool = False) -> Callable[[Any], Any]:
    """Register a function as a section; they run in the order in which they are registered."""

    def register(run: Callable[[Reporter], None]) -> Callable[[Reporter], None]:
        SECTIONS[name] = Section(run, weight, is_alone)
        return run

    return register


# Whose import registers sections. Races take all the time they get, hence come last.
_MODULES = (
    "benchmarks.speed.gpu_sections",
    "benchmarks.speed.gpu_kernels",
    "benchmarks.speed.gpu_programs",
    "benchmarks.speed.gpu_races",
)


def register_all() -> dict[str, Section]:
    """Import all modules that have sections; returns these by name."""
    for module in _MODULES:
        importlib.import_module(module)
    return SECTIONS


class Runner:
    """Runs sections; lives in a process of its own, which says figures as they are found."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        register_all()

    def run(self, name: str, earlier: list[Figure], seconds: float) -> None:
        """Run a section."""
        SECTIONS[name].run(Reporter(self._sizes, earlier, seconds))

    def card(self) -> str:
        """Name the device that JAX runs on."""
        import jax

        return jax.devices()[0].device_kind


def make_runner(sizes: Sizes) -> Callable[[], Runner]:
    """Return what makes a runner in another process."""
    return functools.partial(Runner, sizes)
