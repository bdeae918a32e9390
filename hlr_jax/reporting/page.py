"""Lay a report out as one HTML page that asks nothing of anybody: no scripts, files or fonts."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
  max-width: 1100px; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; } p { margin: .4rem 0; max-width: 46rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.charts svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #ddd;
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.user { border: 1px solid #ddd; border-radius: 6px; padding: .5rem 1rem; margin: 1rem 0; }
.note { color: #555; font-size: .9rem; } .warning { background: #fff4d6; padding: .5rem .8rem; }
"""


def page(title: str, about: str, sections: Sequence[tuple[str, str]]) -> str:
    """Put a page together.

    Args:
      about: a sentence below the title, as text.
      sections: headings, as text, and what stands below them, as HTML.
    """
    body = "\n".join(f"<h2>{text(heading)}</h2>\n{content}" for heading, content in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # A browser asks for an icon otherwise.
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{text(title)}</h1>\n<p>{text(about)}</p>\n{body}\n</body>\n</html>\n"
    )


def text(value: Any) -> str:
    """Write a value as text of a page: titles of items may hold anything."""
    return html.escape(f"{value:.4f}" if isinstance(value, float) else str(value))


def paragraph(words: str, kind: str = "") -> str:
    """Write a paragraph, of the class `note` or `warning` if wanted."""
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def legend(meanings: Mapping[str, str]) -> str:
    """List what names mean, a line each."""
    lines = (f"<b>{text(name)}</b>: {text(words)}" for name, words in meanings.items())
    return f'<p class="note">{"<br>".join(lines)}</p>'


def charts(drawings: Sequence[str]) -> str:
    """Put charts side by side, as many as fit."""
    return '<div class="charts">' + "\n".join(drawings) + "</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write a table; numbers stand to the right."""
    numbers = [isinstance(value, int | float) for value in (rows[0] if rows else head)]

    def line(tag: str, values: Sequence[Any]) -> str:
        cells = (
            f"<{tag}{' class=number' if is_number else ''}>{text(value)}</{tag}>"
            for value, is_number in zip(values, numbers, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    lines = [line("th", head), *(line("td", row) for row in rows)]
    return '<div class="wide"><table>' + "\n".join(lines) + "</table></div>"


def frame(found: pl.DataFrame, names: Mapping[str, str]) -> str:
    """Write some columns of a frame as a table, under other names."""
    kept = {column: name for column, name in names.items() if column in found.columns}
    return table(list(kept.values()), found.select(list(kept)).rows())
