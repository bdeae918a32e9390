"""What the programs under `launch/` share: flags parsed, errors told in one line."""

import logging as python_logging
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from absl import app, flags, logging

from hlr_jax.errors import DivergedError, InputError

if TYPE_CHECKING:
    import polars as pl

_Flag = TypeVar("_Flag")

# Of a run of several processes; see docs/launching.md.
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", "", "host:port of process 0; or auto under SLURM, MPI, on a TPU pod."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Processes of the run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "The number of this one, from 0.")


def run(main: Callable[[], None]) -> None:
    """Run a launcher's `main`, on all cores of a CPU and with compiled programs kept.

    Exit codes: 0 done; 1 training diverged; 2 bad input, or a file that cannot be read or
    written (one line on standard error says what and how to mend it); 3 another process of the run
    has stopped; 130 interrupted.
    """
    app.run(lambda argv: _guarded(main), flags_parser=_parse)


def defined(define: Callable[[], _Flag]) -> _Flag:
    """A configuration flag: `ml_collections` reads its overrides already when it is defined."""
    try:
        return define()
    except Exception as error:
        _fail(_configuration_fault(sys.argv, error))


def say(text: str) -> None:
    """Print; of several processes, only the first does."""
    from hlr_jax.parallel import processes

    if processes.is_first():
        print(text)


def output_file(flag: str, path: str, suffixes: Collection[str]) -> pathlib.Path:
    """The path of a file that is to be written.

    Raises:
      InputError: its folder does not exist, or its name ends otherwise.
    """
    file = pathlib.Path(path)
    if file.suffix not in suffixes:
        raise InputError(f"--{flag}={path}: end it in {', '.join(suffixes)}")
    if not file.parent.is_dir():
        raise InputError(f"--{flag}={path}: there is no folder {file.parent}; make it first")
    return file


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except SystemExit:
        # absl's --help exits with 1, as if asking for help were a mistake.
        sys.exit(0)
    except (flags.Error, InputError) as error:
        _fail(str(error))
    except Exception as error:
        _fail(_configuration_fault(argv, error))
    for name, _, path in (argument.partition("=") for argument in argv[1:]):
        # Told here, because ml_collections tells only when the configuration is used.
        if name == "--config" and not pathlib.Path(path.partition(":")[0]).is_file():
            _fail(f"--config={path}: there is no such file; see configs/")
    if rest[1:]:
        _fail(f"{rest[1]!r}: not a flag; flags are written --name=value, see --help")
    return rest


def _configuration_fault(argv: list[str], error: Exception) -> str:
    """What is wrong with a configuration: an unknown field, or whatever its program raised.

    ConfigDict names a missing field without its section; the flag that meant it is found here.
    """
    missing, _, rest = str(error.args[0] if error.args else error).partition("Did you mean ")
    for argument in argv[1:]:
        flag = argument.split("=")[0]
        names = "|".join(map(re.escape, flag.split(".")[1:]))
        if names and re.search(rf"\b({names})\b", missing):
            hint = rest.split('"')
            remedy = f"did you mean {hint[1]}?" if len(hint) > 1 else "see hlr_jax/config/fields.py"
            return f"{flag}: there is no such field; {remedy}"
    return f"--config: {type(error).__name__}: {error}"


def _guarded(main: Callable[[], None]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        python_logging.getLogger("orbax").setLevel(python_logging.ERROR)
    # These import JAX, which --help need not wait for.
    from jax.errors import JaxRuntimeError

    from hlr_jax.parallel import devices, processes

    try:
        devices.use_all_cores()
        devices.keep_compiled_programs()
        if _COORDINATOR.value:
            processes.connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        main()
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        # A configuration or output file, or the disk; ml_collections tells only now that
        # --config could not be read.
        _fail(str(error))
    except DivergedError as error:
        _fail(str(error), code=1)
    except KeyboardInterrupt as error:
        _fail("; ".join(["interrupted", *map(str, error.args)]), code=130)
    except Exception as error:
        if not processes.are_joined():
            raise
        traceback.print_exc()
        if isinstance(error, JaxRuntimeError):  # what a broken connection ends in
            _fail(processes.LEFT.format("probably another process"), processes.LEFT_CODE)
        _fail(f"{type(error).__name__}; the other processes stop too", code=1)


def _fail(message: str, code: int = 2) -> NoReturn:
    if "jax" in sys.modules:
        from hlr_jax.parallel import processes

        if processes.are_joined():
            processes.leave(message, code)
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def plain(table: "pl.DataFrame") -> str:
    """A table as text, all rows of it."""
    import polars as pl

    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_formatting="NOTHING",
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_width_chars=200,
        fmt_str_lengths=80,
    ):
        return str(table)


def metrics_table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Metrics as rows, one column per named summary; intervals stand beside their means."""
    names = [
        name
        for name, value in next(iter(columns.values())).items()
        if not isinstance(value, Mapping)
    ]
    width = max(map(len, names))

    def cell(summary: Mapping[str, Any], name: str) -> str:
        value = summary.get(name, "")
        text = f"{value:.4f}" if isinstance(value, float) else str(value)
        interval = summary.get("intervals", {}).get(name)
        return text + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")

    cells = [[cell(summary, name) for summary in columns.values()] for name in names]
    widths = [max(len(head), *(len(row[i]) for row in cells)) for i, head in enumerate(columns)]
    lines = [" " * width + "".join(f"  {h:>{w}}" for h, w in zip(columns, widths, strict=True))]
    for name, row in zip(names, cells, strict=True):
        lines.append(
            f"{name:<{width}}" + "".join(f"  {c:>{w}}" for c, w in zip(row, widths, strict=True))
        )
    return "\n".join(lines)
