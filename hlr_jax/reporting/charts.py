"""Charts as SVG that stands in a page: no files, no scripts, text that stays text."""

import collections
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from hlr_jax.errors import InputError

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError:
    raise InputError("a report needs matplotlib: pip install 'hlr_jax[report]'") from None

# Inches; a page shows them at 96 pixels each, so that they fit a telephone as they are.
_WIDTH, _HEIGHT = 3.9, 2.7
_STYLE: Any = {
    "svg.fonttype": "none",
    # A name of a group may have dollar signs.
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
_MOST_GROUPS = 10
# Letters of a name of which three do not fit beside each other.
_LONG_NAME = 12

Numbers = Sequence[float | int]


def lines(title: str, x: Numbers, of_name: Mapping[str, Numbers], at: float | int) -> str:
    """Draw lines over epochs, and a mark at the best one."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": title}):
        figure, panel = _panel(title)
        for name, values in of_name.items():
            panel.plot(x, values, marker=".", label=name)
        if at:
            panel.axvline(at, color="C7", linestyle=":", label="kept")
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(frameon=False)
        return _svg(figure, title)


def bars(
    title: str,
    names: Sequence[str],
    means: Numbers,
    errors: Numbers,
    about: str = "",
) -> str:
    """Draw bars with 95 % intervals of a mean."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": title}):
        figure, panel = _panel(title)
        panel.bar(range(len(names)), means, yerr=errors, capsize=3, color="C0", width=0.6)
        panel.set_xticks(range(len(names)), names)
        panel.grid(axis="x", visible=False)
        panel.set_xlabel(about)
        return _svg(figure, title)


def points(title: str, places: Float[np.ndarray, "n 2"], groups: Sequence[str], about: str) -> str:
    """Draw points on a plane, coloured by group; small groups share a colour."""
    # Of equal size, those that come first.
    kept = [name for name, _ in collections.Counter(groups).most_common(_MOST_GROUPS)]
    size = 6 if len(places) > 500 else 18
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": title, "axes.grid": False}):
        figure, panel = _panel(title, height=3.9)
        chosen = np.asarray(groups)
        others = ~np.isin(chosen, kept)
        if others.any():
            panel.scatter(*places[others].T, s=size, color="#bbbbbb", label="others", linewidths=0)
        for number, name in enumerate(kept):
            mine = places[chosen == name].T
            panel.scatter(*mine, s=size, color=f"C{number}", label=name, linewidths=0)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_xlabel(about)
        columns = 3 if max(map(len, kept), default=0) < _LONG_NAME else 2
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, markerscale=1.5)
        return _svg(figure, title)


def heat_map(title: str, names: Sequence[str], values: Float[np.ndarray, "g m"]) -> str:
    """Draw a table of differences in percent, one row for each name, of slots one after another."""
    most = float(np.abs(values).max(initial=1e-12))
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": title, "axes.grid": False}):
        figure, panel = _panel(title, height=max(_HEIGHT / 2, 0.9 + 0.17 * len(names)))
        drawn = panel.pcolormesh(values[::-1], cmap="RdBu_r", vmin=-most, vmax=most)
        panel.set_yticks(np.arange(len(names)) + 0.5, names[::-1], fontsize=8)
        panel.set_xticks([])
        panel.tick_params(length=0)
        panel.set_xlabel(f"{values.shape[1]} slots")
        bar = figure.colorbar(drawn, ax=panel, format="%+.2g", shrink=0.9)
        bar.set_label("% off the mean of all", fontsize=8)
        bar.outline.set_visible(False)
        return _svg(figure, title)


def _panel(title: str, height: float = _HEIGHT) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    panel = figure.subplots()
    panel.set_title(title, loc="left", fontsize=10)
    return figure, panel


def _svg(figure: Figure, title: str) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    # Without the declaration and the document type, which name files elsewhere.
    return text.getvalue()[text.getvalue().index("<svg") :]
