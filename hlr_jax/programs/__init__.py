"""The programs: `hlr-jax NAME`, `python -m hlr_jax NAME`, or `python launch/NAME.py` in a clone.

Each is a module here: its docstring is its help, and it has a `main`. absl's flags are of a whole
process, so that a program is imported, and defines its flags, only when it is the one that runs.
"""

import ast
import difflib
import importlib
import importlib.util
import sys
from typing import NoReturn

import hlr_jax
from hlr_jax import facts, interrupts

# In the order in which they are listed.
NAMES = (
    "train",
    "evaluate",
    "recommend",
    "compare",
    "baseline",
    "sweep",
    "report",
    "export",
    "serve",
    "demo",
    "fields",
    "cache",
)
_HEAD = f"hlr-jax {hlr_jax.__version__}, metric-learning recommenders. The programs:"


def main() -> None:
    """Run the program that the command line names, or list them all."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in NAMES:
        sys.argv = [f"hlr-jax {name}", *arguments]
        run(name)
    elif name.lstrip("-") in ("h", "help"):
        facts.show(listing())
    elif name == "--version":
        facts.show(f"hlr-jax {hlr_jax.__version__}")
    else:
        _refuse(name)


def run(name: str) -> None:
    """Run a program with the arguments that stand in `sys.argv` after the first."""
    with interrupts.ending_in_one_line():
        from hlr_jax import cli

        cli.run(importlib.import_module(f"{__name__}.{name}"))


def listing() -> str:
    """List the programs, a line for each."""
    lines = [f"  {name:<11}{summary(name)}" for name in NAMES]
    return "\n".join([_HEAD, "", *lines, "", "hlr-jax NAME --help has more on each."])


def summary(name: str) -> str:
    """Return the first line of a program's text, without importing it."""
    spec = importlib.util.find_spec(f"{__name__}.{name}")
    assert spec is not None
    source = spec.loader.get_source(spec.name)  # type: ignore[union-attr]
    text = ast.get_docstring(ast.parse(source))
    assert text is not None
    return text.splitlines()[0]


def _refuse(name: str) -> NoReturn:
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(NAMES)}"
    print(f"error: hlr-jax {name}: there is no such program; {hint}", file=sys.stderr)
    sys.exit(2)
