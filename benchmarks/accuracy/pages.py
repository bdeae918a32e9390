"""Write tables of accuracies in Markdown, between marks of a page that people write."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.accuracy.entries import Protocol
from benchmarks.accuracy.summaries import CML_OF
from hlr_jax.comparison.words import decimal, metric_name, signed

NAMES = {
    "cml": "CML",
    "lrml": "LRML",
    "hlr": "HLR",
    "hlrpp": "HLR++",
    "adacml": "AdaCML",
    "transcf": "TransCF",
    "dpcml": "DPCML",
    "history_mean": "CML + history mean",
    "items_only": "items only",
    "nearest_items": "CML + nearest items",
    "recent_items": "CML + recent items",
    "rotation": "rotation",
    "multi_head": "LRML, several heads",
    "most_popular": "most popular",
    "ease": "EASE",
    "ials": "iALS",
    "bpr": "BPR",
    "item_knn": "item kNN",
    "slim": "SLIM",
    "rp3beta": "RP3beta",
    "ials_scaled": "iALS, scaled regularisation",
}
# Of a user with n relevant items and a list of k.
_MEANINGS = {
    "ndcg": "NDCG: binary gains, 1 / log2(rank + 1) each, over those of the best list of k",
    "recall": "recall: hits / relevant items",
    "recall_capped": "capped recall: hits / min(k, relevant items)",
    "precision": "precision: hits / k",
    "hit_rate": "HR: 1 with a hit, else 0",
}
_NEW_PAGE = """# Tables

All figures are measured on test; what has to be chosen is chosen on validation. Tables and plots
are made by `benchmarks/accuracy/tables.py` from the files in `benchmarks/results/accuracy/`.
"""


def name_of(record: Mapping[str, Any]) -> str:
    """Write the name of an entry as people do."""
    return NAMES.get(record["name"], record["name"])


def as_markdown(
    protocol: Protocol, results: Mapping[str, Any], summary: Mapping[str, Any], plots: str = ""
) -> str:
    """Write caption, table, plot, and the table of what relations add to CML.

    Args:
      plots: folder of the plots, as links on the page name it, with a slash at its end.
    """
    parts = [
        _caption(protocol, results, summary),
        _table(*_main_table(protocol, results, summary)),
        f"![{metric_name(protocol.metrics[0])} of all entries]({plots}{protocol.name}.png)",
    ]
    against = [key for key, row in summary["rows"].items() if "against_cml" in row]
    if against:
        head = ["", "settings", f"{metric_name(protocol.metrics[0])} minus CML's (95 %)", "p"]
        records = results["entries"]
        rows = [
            [name_of(records[key]), records[key]["label"], *_test(row["against_cml"])]
            for key, row in ((key, summary["rows"][key]) for key in against)
        ]
        labels = sorted({records[key]["label"] for key in against} & CML_OF.keys())
        others = "".join(f" (`{label}`: with `{CML_OF[label]}`)" for label in labels)
        text = f"Compared with CML with settings of the same origin{others}:"
        parts += [text, _table(head, rows)]
    return "\n\n".join(parts)


def _caption(protocol: Protocol, results: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    data, records = results["data"], results["entries"]
    runs = [run for record in records.values() for run in record["runs"].values()]
    users = sorted({run["test"]["users"] for run in runs})
    seeds = sorted({int(seed) for record in records.values() for seed in record["runs"]})
    counted = " or ".join(f"{number:,}" for number in users)
    if protocol.settings.get("evaluation.protocol") == "sampled":
        ranked = (
            "The test item is ranked among the negatives given with the data; "
            f"{counted} users are counted: all with one test item and negatives."
        )
    else:
        given = " and those given" if "given" in data["split_sizes"] else ""
        ranked = (
            f"The whole catalogue of {data['items']:,} items is ranked without the user's items of "
            f"training and validation{given}; {counted} users are counted: all with a test "
            "interaction."
        )
    names = dict.fromkeys(metric.partition("@")[0] for metric in protocol.metrics)
    sizes = " / ".join(f"{data['split_sizes'][part]:,}" for part in ("train", "valid", "test"))
    lines = [
        f"{protocol.about} Interactions of training / validation / test: {sizes}. {ranked}",
        f"{'; '.join(_MEANINGS[name] for name in names)}; means over users. Seeds "
        f"{', '.join(map(str, seeds))}: mean ± sample standard deviation over them, and how many "
        "in the column of seeds. What chooses an epoch, or the trial of a baseline, is measured on "
        "validation; where it says `+ valid`, the chosen one is then trained again, on training "
        "and validation together.",
    ]
    if summary["best_peer"]:
        lines.append(
            "Differences, their 95 % intervals and p-values are those of two-sided paired t-tests "
            "over users, each with the mean of its seeds, and not corrected for their number. The "
            "best peer is the baseline that is best on test."
        )
    if any(relation(record) for record in records.values()):
        lines.append(
            "Relation: constant, by user, by item, or varies (docs/extending.md); in brackets, how "
            "far distances move with its mean in its place, as a share of their spread."
        )
    if protocol.references:
        lines.append("Rows in italics are others' figures:")
        sources: dict[str, list[str]] = {}
        for reference in protocol.references:
            sources.setdefault(reference.source, []).append(reference.name)
        lines[-1] += " " + "; ".join(f"{', '.join(of)}: {by}" for by, of in sources.items()) + "."
    lines.append(f"`python -m benchmarks.accuracy.tables --protocol={protocol.name} --render`")
    return "\n\n".join(lines)


def _main_table(
    protocol: Protocol, results: Mapping[str, Any], summary: Mapping[str, Any]
) -> tuple[list[str], list[list[str]]]:
    records, best = results["entries"], summary["best_peer"]
    head = ["", "settings", "relation", "chosen by", "trained on", "seeds"]
    head += map(metric_name, protocol.metrics)
    if best:
        head += [f"{metric_name(protocol.metrics[0])} minus {name_of(records[best])}'s (95 %)", "p"]
    rows = []
    for key, row in summary["rows"].items():
        record = records[key]
        test = _test(row["against_best_peer"]) if "against_best_peer" in row else ["best peer", ""]
        rows.append(
            [
                name_of(record),
                record["label"],
                relation(record),
                *_origin(record),
                str(len(row["seeds"])),
                *(over_seeds(row[metric]) for metric in protocol.metrics),
                *(test if best else []),
            ]
        )
    for reference in protocol.references:
        # As many digits as others gave.
        digits = 3 if all(round(v, 3) == v for v in reference.values.values()) else 4
        values = [reference.values.get(metric) for metric in protocol.metrics]
        cells = ["" if value is None else decimal(value, digits) for value in values]
        row = [f"*{reference.name}*", "*reference*", "", "", "", "", *cells]
        rows.append(row + [""] * (len(head) - len(row)))
    return head, rows


def relation(record: Mapping[str, Any]) -> str:
    """Say what a model's relation is, and how far its mean in its place moves distances.

    The latter is the mean over seeds, of which the former is told. Runs from before this was
    measured do not count; without any other it is "not measured". What has no relation gets "".
    """
    # These import JAX, which --help need not wait for.
    from hlr_jax.models import RELATIONS
    from hlr_jax.runs.diagnosis import of_seeds

    if "baseline" in record or not RELATIONS.get(record["name"]).has_relation:
        return ""
    found = [run["diagnosis"]["moves"] for run in record["runs"].values() if "diagnosis" in run]
    if not found:
        return "not measured"
    return of_seeds(found)[1]


def _origin(record: Mapping[str, Any]) -> list[str]:
    """Say what chose the model, and what it was trained on."""
    settings = record["settings"]
    if "baseline" in record:
        trials = next(iter(record["runs"].values()))["trials"]
        chosen = f"{record['selection_metric']}, {trials} trials" if trials else "given"
        return [chosen, "train + valid"]
    chosen = settings.get("training.selection_metric", "loss")
    return [chosen, "train + valid" if settings.get("training.refit") else "train"]


def over_seeds(value: Mapping[str, float | None]) -> str:
    """Write a mean with its deviation, if there is one."""
    mean, deviation = value["mean"], value["deviation"]
    assert mean is not None
    return decimal(mean) + (f" ± {decimal(deviation)}" if deviation is not None else "")


def _test(test: Mapping[str, Any]) -> list[str]:
    low, high = test["interval"]
    p = test["p_value"]
    shown = "< .001" if p < 0.001 else decimal(p, 3)
    return [
        f"{signed(test['difference'])} [{signed(low)}, {signed(high)}]",
        shown,
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def render(page: str, tables: Mapping[str, str]) -> str:
    """Put tables between their marks of a page, and leave everything else as it is.

    A table that has no marks yet gets a section at the end.

    Args:
      page: Markdown; "" makes a new page.
      tables: Markdown by the name of a protocol.
    """
    page = page or _NEW_PAGE
    for name, table in tables.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        block = f"{begin}\n\n{table}\n\n{end}"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if found and not closed:
            raise ValueError(f"the page has {begin!r} without {end!r}")
        page = f"{before}{block}{after}" if found else f"{page}\n## {name}\n\n{block}\n"
    return page
