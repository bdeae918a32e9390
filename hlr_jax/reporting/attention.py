"""Show what the attention of a memory depends on."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from hlr_jax.errors import InputError
from hlr_jax.reporting import charts, page
from hlr_jax.runs.analysis import Analysis, NoLabelsError, NoMemoryError, analyse_beside
from hlr_jax.runs.diagnosis import Diagnosis
from hlr_jax.runs.recommender import Recommender

_ABOUT = (
    "How interactions that the model has not seen attend to the slots of the memory. Bits: what a "
    "group tells of the slot that is attended to. Tested: without what users add to it, or items "
    "where groups are of users, or both, each for itself. Permuted: the same where groups are "
    "dealt out at random among items, users, or the items of users. p: how often chance reaches "
    "what is tested. At most: what single interactions tell. Small groups differ by chance."
)
_MATCHING = (
    "How often two interactions share a tag, which is one of the three most frequent ones of their "
    "users: a random one, and the nearest by relation, or by the vectors of items or users alone. "
    "Those of the same user or item are near each other anyway, so the last column is without them."
)


_UNKNOWN = (
    "Neither genres of the items nor ratings or times are known, by which it could be told. "
    "--groups names a table of groups of items; hlr_jax.analyse takes a frame of interactions."
)


def sections(
    diagnosis: Diagnosis, recommender: Recommender, groups: Mapping[Any, str] | None
) -> list[tuple[str, str]]:
    """Write the section about attention; none for a model without a memory.

    Args:
      diagnosis: of the relation.
      groups: of items by id; without them, genres, ratings and times are those of the data set.
    """
    heading = "What the attention depends on"
    labels = None
    if groups is not None:
        items = [str(item) for item in groups]
        labels = pl.DataFrame({"item": items, "group": list(groups.values())})
    try:
        found = analyse_beside(diagnosis, recommender, labels)
    except NoMemoryError:
        return []
    except NoLabelsError:
        return [(heading, page.paragraph(_UNKNOWN, "note"))]
    except InputError as error:
        return [(heading, page.paragraph(str(error)))]
    return [(heading, _content(found))]


def _content(found: Analysis) -> str:
    kind = "warning" if found.diagnosis.is_constant else ""
    parts = [page.paragraph(f"{found.verdict}.", kind), _tests(found.dependence)]
    parts.append(page.paragraph(_ABOUT, "note"))
    drawn = found.weights.partition_by("by", maintain_order=True)
    parts.append(page.charts([_weights(of_groups) for of_groups in drawn]))
    if found.matching.height:
        parts += ["<h3>Like relations, like tags</h3>", _matched(found.matching)]
        parts.append(page.paragraph(_MATCHING, "note"))
    return "\n".join(parts)


def _tests(dependence: pl.DataFrame) -> str:
    head = (
        "by",
        "depends",
        "bits",
        "tested",
        "permuted",
        "p",
        "at most",
        "groups",
        "permuted among",
    )
    rows = [
        (
            row["by"],
            "yes" if row["depends"] else "no",
            *(f"{row[name]:.2g}" for name in ("bits", "tested", "permuted")),
            f"{row['p']:.3f}",
            f"{row['most']:.2g}",
            row["groups"],
            row["permuted_among"],
        )
        for row in dependence.iter_rows(named=True)
    ]
    return page.table(head, rows)


def _weights(of_groups: pl.DataFrame) -> str:
    """Draw by how much mean weights of groups differ from those of all, group by group."""
    wide = of_groups.pivot(on=["memory", "slot"], index=["group", "interactions"], values="weight")
    weights = wide.drop("group", "interactions").to_numpy()
    counts = wide["interactions"].to_numpy()
    mean = (weights * counts[:, None]).sum(axis=0) / counts.sum()
    by = of_groups["by"][0]
    names = [f"{group} ({count:,})" for group, count in wide.select("group", "interactions").rows()]
    return charts.heat_map(f"Mean weights by {by}", names, 100 * (weights / mean - 1))


def _matched(matching: pl.DataFrame) -> str:
    def percent(row: Mapping[str, Any], name: str, error: str) -> str:
        return f"{row[name]:.1%} ± {row[error]:.1%}"

    rows = [
        (
            row["nearest"],
            percent(row, "probability", "error"),
            percent(row, "apart", "apart_error"),
        )
        for row in matching.iter_rows(named=True)
    ]
    return page.table(("nearest by", "share a tag", "of other users and items"), rows)
