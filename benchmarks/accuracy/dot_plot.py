"""Draw the main metric of all entries of a protocol as dots."""

import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks.accuracy.entries import Protocol
from benchmarks.accuracy.pages import name_of
from hlr_jax.comparison.words import metric_name

_COLOURS = {"baseline": "C7", "published": "C0", "tuned": "C1", "recent": "C3"}


def draw(
    path: pathlib.Path, protocol: Protocol, results: Mapping[str, Any], summary: Mapping[str, Any]
) -> None:
    """Draw a dot per entry, with a bar of a standard deviation over seeds to each side.

    References are hollow; a line marks the best peer.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    main, records = protocol.metrics[0], results["entries"]
    references = [r for r in protocol.references if main in r.values]
    labels = []
    height = 0.8 + 0.28 * (len(summary["rows"]) + len(references))
    figure, panel = plt.subplots(figsize=(7, height), layout="constrained")
    shown = set()
    for place, (key, row) in enumerate(summary["rows"].items()):
        record, value = records[key], row[main]
        label, name = record["label"], name_of(record)
        labels.append(name if label == "baseline" else f"{name}, {label}")
        panel.errorbar(
            value["mean"],
            place,
            xerr=value["deviation"] or 0,
            fmt="o",
            capsize=3,
            color=_COLOURS.get(label, "C2"),
            label=None if label in shown else label,
        )
        shown.add(label)
    for number, reference in enumerate(references):
        label = None if number else "others' figures"
        place = len(labels)
        panel.plot(reference.values[main], place, "D", mfc="none", color="black", label=label)
        labels.append(reference.name)
    if summary["best_peer"]:
        best = summary["rows"][summary["best_peer"]][main]["mean"]
        panel.axvline(best, color="C7", linestyle=":", label="best peer")
    panel.set_yticks(range(len(labels)), labels)
    panel.invert_yaxis()
    panel.set_xlabel(f"{metric_name(main)} (bars: standard deviation over seeds)")
    panel.set_title(protocol.name)
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    # Without the date and version that would make every drawing another file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
