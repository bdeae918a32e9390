"""Try a benchmark with small sizes, by --quick: whether it works, not how fast it is."""

from typing import Any

from absl import app, flags

from benchmarks import output

_QUICK = flags.DEFINE_boolean("quick", False, "Try the program with small sizes, in a minute.")


def shrink(**values: Any) -> None:
    """With --quick, give these values to the flags that are not on the command line.

    Raises:
      UsageError: with --record.
    """
    if _QUICK.value and output.is_recording():
        raise app.UsageError("--quick is no measurement; leave --record away")
    for name, value in values.items():
        if _QUICK.value and not flags.FLAGS[name].present:
            flags.FLAGS[name].value = value


def is_asked() -> bool:
    """Whether --quick is given."""
    return _QUICK.value
