"""What the programs share: they parse flags, and print help, tables and errors in one line."""

import functools
import inspect
import logging as python_logging
import pathlib
import re
import sys
import textwrap
import traceback
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from hlr_jax import facts, interrupts, progress
from hlr_jax.config import renamed
from hlr_jax.errors import DivergedError, InputError
from hlr_jax.files import disk_fault

if TYPE_CHECKING:
    import polars as pl

_Flag = TypeVar("_Flag")

# Of a run of several processes; see docs/launching.md.
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", "", "host:port of process 0; or auto under SLURM, MPI, on a TPU pod."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Processes of the run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "The number of this one, from 0.")

flags.DEFINE_multi_string(
    "import",
    [],
    "Module that registers relations, geometries, losses or samplers, as my_module or "
    "my_package.my_module. It must be installed, or in a folder of PYTHONPATH. Repeat the flag or "
    "use commas for several. Installed packages with an entry point of the group hlr_jax.plugins "
    "need no flag.",
)
_PROGRESS = flags.DEFINE_enum(
    "progress",
    "auto",
    list(progress.MODES),
    "How far things are: a bar, plain lines for a log file, or nothing. auto: a bar in a terminal.",
)
# Flags that functions of this module define from here on are those of the program that calls them.
flags.disclaim_key_flags()


def run(program: types.ModuleType) -> None:
    """Run the `main` of a program on all cores of a CPU, with the cache of compiled programs.

    A `main` with a parameter is handed the arguments that are no flags; others take none.

    Exit codes: 0 done; 1 training diverged; 2 bad input, or a file that cannot be read or
    written (one line on standard error says what is wrong and how to correct it); 3 another process
    of the run has stopped; 130 interrupted, by Ctrl-C (SIGINT), SIGTERM or SIGHUP.
    """
    flags.FLAGS.set_gnu_getopt()  # Flags may stand after other arguments.
    app.run(
        lambda argv: _guarded(program.main, *_arguments(program, argv)),
        flags_parser=functools.partial(_parse, program),
    )


def _arguments(program: types.ModuleType, argv: list[str]) -> list[list[str]]:
    """Return what to hand to the `main` of a program, which has a parameter or none."""
    return [argv[1:]] if inspect.signature(program.main).parameters else []


def define_config(
    name: str = "config", default: str | None = None
) -> "flags.FlagHolder[ml_collections.ConfigDict]":
    """Define a flag for a configuration file, whose fields can be changed by further flags."""
    about = (
        "A name of those below, as embedded/hlr, or a file of your own, as my.py or my.py:name. "
        f"Its fields, which hlr-jax fields explains, are flags: --{name}.seed=1."
    )
    if default is not None:
        about += f" By default {default}."
    # It has no value yet, so that the parser below reads the default too.
    holder = config_flags.DEFINE_config_file(name, None, about)
    flags.FLAGS[name].parser = _ConfigurationParser()
    if default is None:
        flags.mark_flag_as_required(name)
    else:
        flags.set_default(holder, default)
    return holder


def define_all_metrics() -> "flags.FlagHolder[bool]":
    """Define the flag of programs that print `measured`, for its `all_metrics`."""
    return flags.DEFINE_bool("all_metrics", False, "Print variants of papers too.")


def defined(define: Callable[[], _Flag]) -> _Flag:
    """Define a configuration flag that has a default, or end the program with one line.

    `ml_collections` reads the overrides of such a flag already when it is defined.
    """
    try:
        return define()
    except (InputError, _ConfigurationError) as error:
        _fail(str(error))
    except Exception as error:
        _fail(_configuration_fault(sys.argv, error))


def say(text: str) -> None:
    """Print a text, which nobody need read; of several processes only the first does."""
    from hlr_jax.parallel import processes

    if processes.is_first():
        facts.show(text)


def output_file(flag: str, path: str, suffixes: Collection[str]) -> pathlib.Path:
    """Return the path of a file that is to be written.

    Raises:
      InputError: its folder does not exist, or its name does not end in one of the suffixes.
    """
    file = pathlib.Path(path)
    if file.suffix not in suffixes:
        raise InputError(f"--{flag}={path}: end it in {', '.join(suffixes)}")
    if not file.parent.is_dir():
        raise InputError(f"--{flag}={path}: there is no folder {file.parent}; make it first")
    return file


def _parse(program: types.ModuleType, argv: list[str]) -> list[str]:
    if not {"-h", "--help", "-help", "--helpshort", "--helpfull"}.isdisjoint(argv[1:]):
        facts.show(help_text(program))
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        _fail(_unknown_flag(error))
    except (flags.Error, InputError, _ConfigurationError) as error:
        _fail(_missing(argv) if _REQUIRED in str(error) else str(error))
    except Exception as error:
        _fail(_configuration_fault(argv, error))
    if rest[1:] and not _arguments(program, rest):
        _fail(f"{rest[1]!r}: not a flag; flags are written --name=value, see --help")
    return rest


def help_text(program: types.ModuleType) -> str:
    """Return what --help prints: what a program says of itself, its flags, configurations."""
    own = flags.FLAGS.get_flags_for_module(program.__name__)
    shared = flags.FLAGS.get_flags_for_module(__name__)
    parts = [str(program.__doc__).strip()]
    parts += ["Flags:", *_described(own)] if own else []
    parts += ["Flags of every program:", *_described(shared)]
    if any(isinstance(flag.parser, _ConfigurationParser) for flag in own):
        from hlr_jax.config import shipped

        parts += [f"{_CONFIGURATIONS}\n{shipped.describe()}"]
    return "\n\n".join(parts)


def _described(found: Iterable[flags.Flag]) -> list[str]:
    """Describe flags for people, those that must be given first."""
    # Flags with a dot are changed fields of a configuration.
    named = {flag.name: flag for flag in found if "." not in flag.name}
    order = sorted(named, key=lambda name: (not _is_required(named[name]), name))
    return ["\n".join(_describe_flag(named[name])) for name in order]


def _describe_flag(flag: flags.Flag) -> list[str]:
    is_switch = flag.flag_type() == "bool"
    name = f"--[no]{flag.name}" if is_switch else f"--{flag.name}"
    values = getattr(flag.parser, "enum_values", None) or ["..."]
    notes = ["required"] if _is_required(flag) else []
    if not isinstance(flag.default, ml_collections.ConfigDict) and flag.default not in _NOTHING:
        notes += [f"default: {str(flag.default_as_str).strip(chr(39))}"]
    if isinstance(flag, flags.MultiFlag):
        notes += ["may be repeated"]
    head = f"  {name}" + ("" if is_switch else f"={'|'.join(values)}")
    # absl adds what the head says already.
    about = flag.help.removeprefix(f"<{'|'.join(values)}>: ").partition(";\n    repeat this")[0]
    return [f"{head}  ({'; '.join(notes)})" if notes else head, *_indented(about)]


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)


_CONFIGURATIONS = """Configurations, whose names join what stands left and right, as embedded/hlr.
ml_1m/hlr alone is the recommended one: that of full_catalog/, else tuned/, else published/.
"""
# Defaults of which there is nothing to say.
_NOTHING: tuple[Any, ...] = (None, "", [])
_REQUIRED = "must have a value other than None"


def _missing(argv: list[str]) -> str:
    """Say which flags are missing, in this library's words instead of absl's."""
    required = sorted(name for name in flags.FLAGS if _is_required(flags.FLAGS[name]))
    missing = [f"--{name}=.." for name in required if flags.FLAGS[name].value is None]
    return f"give {' and '.join(missing)}; see {argv[0]} --help"


def _unknown_flag(error: flags.UnrecognizedFlagError) -> str:
    """Say which fields of the configuration an unknown flag may mean."""
    from hlr_jax import config as configs

    if "config" not in flags.FLAGS or "." in error.flagname:
        return str(error)
    named = [x for x in configs.flat(configs.Config()) if x.split(".")[-1] == error.flagname]
    value = str(error.flagvalue or "").partition("=")[2] or ".."
    meant = " or ".join(f"--config.{name}={value}" for name in named)
    return (
        f"--{error.flagname}: there is no such flag; did you mean {meant}?" if meant else str(error)
    )


def _is_required(flag: flags.Flag) -> bool:
    return any(_REQUIRED in validator.message for validator in flag.validators)


def _imports(argv: list[str]) -> list[str]:
    """Read the modules that --import names, before any flag is parsed.

    They register classes whose options are flags too.
    """
    arguments = iter(flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=True))
    named: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if argument == "--":
            break
        if flag in ("--import", "-import"):
            named += (value if equals else next(arguments, "")).split(",")
    return named


class _Warning(python_logging.Formatter):
    """Writes what is logged for people: without times, threads and places in the code."""

    def format(self, record: python_logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


class _ConfigurationError(Exception):
    """A fault of a configuration file. absl adds to the message of a ValueError."""


class _ConfigurationParser(flags.ArgumentParser[ml_collections.ConfigDict]):
    """Reads a configuration file, after the modules whose options are its flags."""

    def parse(self, path: str) -> ml_collections.ConfigDict:
        from hlr_jax.config import files

        try:
            values = files.read(path, _imports(sys.argv))
        except (InputError, OSError) as error:
            raise _ConfigurationError(error) from error
        return values.lock()


def _configuration_fault(argv: list[str], error: Exception) -> str:
    """Say what is wrong with a configuration: an unknown or renamed field, or anything else.

    ConfigDict names a missing field without its section; the flag that meant it is found here.
    """
    missing, _, rest = str(error.args[0] if error.args else error).partition("Did you mean ")
    for argument in argv[1:]:
        flag = argument.split("=")[0]
        field = flag.partition(".")[2]
        if new := renamed.explain(field):
            return new.replace(f"config.{field}", flag, 1)
        names = "|".join(map(re.escape, field.split(".")))
        if field and re.search(rf"\b({names})\b", missing):
            hint = rest.split('"')
            remedy = f"did you mean {hint[1]}?" if len(hint) > 1 else "see hlr-jax fields"
            return f"{flag}: there is no such field; {remedy}"
    return f"--config: {type(error).__name__}: {error}"


def _guarded(main: Callable[..., None], *arguments: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        python_logging.getLogger("orbax").setLevel(python_logging.ERROR)
        logging.get_absl_handler().setFormatter(_Warning())
    # These import JAX, which --help need not wait for.
    from jax.errors import JaxRuntimeError

    from hlr_jax.config import plugins
    from hlr_jax.parallel import devices, processes

    try:
        devices.use_all_cores()
        devices.keep_compiled_programs()
        if _COORDINATOR.value:
            processes.connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        plugins.load(_imports(sys.argv), plugins.FLAG)
        progress.set_progress(_PROGRESS.value)
        main(*arguments)
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        # An output file, or the disk.
        _fail(disk_fault(error))
    except DivergedError as error:
        _fail(str(error), code=1)
    except KeyboardInterrupt as error:
        _fail(interrupts.told(error), interrupts.EXIT_CODE)
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
    """Return a table as text, with all of its rows."""
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


def measured(columns: Mapping[str, Mapping[str, Any]], all_metrics: bool = False) -> str:
    """Return `metrics_table`, and what each metric of it means."""
    from hlr_jax.evaluation import metrics

    found = [name for summary in columns.values() for name in summary]
    hidden = [] if all_metrics else [name for name in found if not metrics.is_standard(name)]
    legend = metrics.legend(name for name in found if name not in hidden)
    if hidden:
        legend["(more)"] = f"--all_metrics shows {', '.join(metrics.legend(hidden))} too"
    return f"{metrics_table(columns, all_metrics)}\n\n{facts.as_text('', legend)}"


def metrics_table(columns: Mapping[str, Mapping[str, Any]], all_metrics: bool = False) -> str:
    """Return a text: a row for each metric, a column for each summary, intervals beside means.

    Args:
      all_metrics: not the standard ones alone, but variants of papers too.
    """
    from hlr_jax.evaluation.metrics import is_standard

    names = [
        name
        for name, value in next(iter(columns.values())).items()
        if not isinstance(value, Mapping) and (all_metrics or is_standard(name))
    ]
    width = max(map(len, names))

    def number(value: float) -> str:
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"

    def cell(summary: Mapping[str, Any], name: str) -> str:
        value = summary.get(name, "")
        text = number(value) if isinstance(value, float) else str(value)
        interval = summary.get("intervals", {}).get(name)
        return text + (f" [{', '.join(map(number, interval))}]" if interval else "")

    cells = [[cell(summary, name) for summary in columns.values()] for name in names]
    widths = [max(len(head), *(len(row[i]) for row in cells)) for i, head in enumerate(columns)]
    lines = [" " * width + "".join(f"  {h:>{w}}" for h, w in zip(columns, widths, strict=True))]
    for name, row in zip(names, cells, strict=True):
        lines.append(
            f"{name:<{width}}" + "".join(f"  {c:>{w}}" for c, w in zip(row, widths, strict=True))
        )
    return "\n".join(lines)
