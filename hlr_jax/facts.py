"""Facts about something by name: as lines that fit a screen, and as a table for a notebook."""

import html
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

# Columns of a screen, and lines for a fact.
WIDTH, _MOST_LINES = 80, 4


def as_text(title: str, facts: Mapping[str, str]) -> str:
    """Write facts in lines of `WIDTH` columns, below a title if there is one.

    Args:
      facts: texts by name; those without a word are left out.
    """
    known = {name: text for name, text in facts.items() if text}
    width = max(map(len, known), default=0) + 4
    lines = [title] if title else []
    for name, text in known.items():
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=f"  {name}".ljust(width),
            subsequent_indent=" " * width,
            break_on_hyphens=False,
            max_lines=_MOST_LINES,
            placeholder=" ...",
        )
    return "\n".join(lines)


def show(text: str) -> None:
    """Print a text, which may be read in part: by `head`, or a pager that is left."""
    try:
        print(text, flush=True)  # In its place among what goes to standard error.
    except BrokenPipeError:
        # Else Python tries again when it ends, and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_html(title: str, facts: Mapping[str, str]) -> str:
    """Write facts as a table of HTML; whatever they hold is text."""
    rows = "".join(
        f'<tr><th style="text-align: left">{html.escape(name)}</th>'
        f'<td style="text-align: left">{html.escape(text)}</td></tr>'
        for name, text in facts.items()
        if text
    )
    return f"<div><b>{html.escape(title)}</b><table>{rows}</table></div>"


def some(values: Sequence[Any]) -> str:
    """Name the first of some values: `1, 2, 3, ...`."""
    first = [str(value) for value in values[:3]]
    return ", ".join([*first, *(["..."] if len(values) > len(first) else [])])
