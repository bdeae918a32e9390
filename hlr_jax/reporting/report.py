"""Collect what a report shows."""

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hlr_jax import facts
from hlr_jax.data import Dataset, described
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.files import read_json_lines, write_text
from hlr_jax.parallel import processes
from hlr_jax.reporting import attention, charts, page
from hlr_jax.runs.diagnosis import NoDiagnosisError, diagnose
from hlr_jax.runs.recommender import Recommender
from hlr_jax.runs.trackers import Callback, Start

# Users who are shown, items of each of their lists, and items of the map.
_SHOWN, _LISTED, _MAPPED = 3, 8, 3000
_QUARTERS = ("least", "less", "more", "most")


def report(
    recommender: Recommender,
    path: str | pathlib.Path,
    workdir: str | pathlib.Path | None = None,
    groups: Mapping[Any, str] | None = None,
) -> None:
    """Write `report.html`: one file that needs nothing else, to be looked at in any browser.

    Args:
      path: of the file.
      workdir: of the run, whose `metrics.jsonl` gives the curves; without it there are none.
      groups: of items by id, which colour the map, and by which attention is analysed. Without
        them genres of the data set do, if its files are here and name any, else popularity.

    Raises:
      InputError: there is no test split, the file cannot be written, matplotlib is missing, or
        no group is of an item of the data set.
    """
    path, data = pathlib.Path(path), recommender.dataset
    _check_test(data)
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    if groups is not None and (data.item_rows(list(groups)) < 0).all():
        raise InputError(
            f"groups: none is of an item of data set {data.name!r}, whose ids look like "
            f"{facts.some(data.item_ids[:4].tolist())}"
        )
    sections = [
        *_curves(workdir),
        *_measures(recommender),
        *_relation(recommender, groups),
        ("A map of the items", _map(recommender, groups)),
        ("Some users", _users(recommender)),
    ]
    config = recommender.config
    sizes = ", ".join(f"{size:,} {part}" for part, size in data.split_sizes.items())
    about = (
        f"{config.model.name}, {recommender.model.dim} dimensions, geometry "
        f"{config.geometry.name}, loss {config.loss.name}. Data: {data.name}, {data.num_users:,} "
        f"users, {data.num_items:,} items; interactions: {sizes}."
    )
    write_text(path, page.page(f"{config.model.name} on {data.name}", about, sections))


def _check_test(data: Dataset) -> None:
    if not len(data.test):
        raise InputError(f"data set {data.name}: no user has a test item to report on")


class ReportCheck(Callback):
    """Refuses a run that `report_run` cannot write about, before it trains.

    Raises:
      InputError: it is one of several processes; or, at the start, there is no test split.
    """

    def __init__(self) -> None:
        if processes.count() > 1:
            raise InputError(
                "--report: one process writes it; run hlr-jax report afterwards instead"
            )

    def on_start(self, start: Start) -> None:
        _check_test(start.dataset)


def report_run(workdir: str | pathlib.Path) -> pathlib.Path:
    """Write `report.html` into the folder of a finished run; see `report`."""
    path = pathlib.Path(workdir) / "report.html"
    report(Recommender.load(workdir), path, workdir)
    return path


def _curves(workdir: str | pathlib.Path | None) -> list[tuple[str, str]]:
    records = [] if workdir is None else read_json_lines(pathlib.Path(workdir) / "metrics.jsonl")
    if not records:
        return []
    epochs = [record["epoch"] for record in records]
    names = [name for name in records[0] if name.startswith(("train_", "valid_"))]
    losses = [name for name in names if name.endswith("loss")]
    others = [name for name in names if name not in losses]
    chosen = others[0] if others else ("valid_loss" if "valid_loss" in losses else "")
    best = 0
    if chosen:
        values = [record[chosen] for record in records]
        best = epochs[int(np.argmax(values) if others else np.argmin(values))]

    def chart(title: str, shown: list[str]) -> str:
        of_name = {name: [record[name] for record in records] for name in shown}
        return charts.lines(title, epochs, of_name, best)

    drawings = [chart("Loss", losses)]
    drawings += [chart(name.removeprefix("valid_"), [name]) for name in others]
    return [("Training", page.charts(drawings))]


def _measures(recommender: Recommender) -> list[tuple[str, str]]:
    """Measure on test: a table of all metrics, and means by group of users and of items."""
    measured = recommender.with_evaluation(per_user=True, protocol="full")
    summary = measured.evaluate("test")
    cutoff = max(recommender.config.evaluation.cutoffs)
    rows = []
    for name, value in summary.items():
        if metrics.is_standard(name) and isinstance(value, float):
            interval = summary.get("intervals", {}).get(name)
            between = "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
            rows.append((name, value, between))
    data = recommender.dataset
    users = np.flatnonzero(data.test.counts)
    # In the order of users, as `evaluate_split` measures them.
    values = np.array([x or 0.0 for x in summary["per_user"][f"ndcg@{cutoff}"]])
    by_user = _by_quarter(f"NDCG@{cutoff} by activity", values, data.train.counts[users], "users")
    found = _by_popularity(recommender, cutoff)
    legend = page.legend(metrics.legend(name for name, _, _ in rows))
    head = ("metric", "mean", "95 %")
    text = (
        f"{len(users):,} users with test items; every item is ranked but those that a user has in "
        "training and validation. Intervals are of bootstraps over users."
    )
    return [
        ("How good it is", page.paragraph(text) + page.table(head, rows) + legend),
        ("For whom, and with what", page.charts([by_user, found])),
    ]


def _by_quarter(
    title: str, values: Float[np.ndarray, "n"], sizes: Int[np.ndarray, "n"], of: str
) -> str:
    """Draw means of quarters, from those of the least to those of the most interactions."""
    parts = np.array_split(np.argsort(sizes, kind="stable"), len(_QUARTERS))
    parts = [part for part in parts if len(part)]
    means = [float(values[part].mean()) for part in parts]
    errors = [float(1.96 * values[part].std() / max(len(part), 1) ** 0.5) for part in parts]
    names = [
        f"{name}\n{sizes[part].min()}-{sizes[part].max()}"
        for name, part in zip(_QUARTERS, parts, strict=False)
    ]
    return charts.bars(title, names, means, errors, f"{of} by training interactions")


def _by_popularity(recommender: Recommender, cutoff: int) -> str:
    """Draw the recall of test interactions, by the popularity of their items."""
    data = recommender.dataset
    users = np.flatnonzero(data.test.counts).astype(np.int32)
    top, _ = recommender.top_k(users, cutoff, data.known("test"))
    rows, items = data.test.users, data.test.items
    hits = (top[np.searchsorted(users, rows)] == items[:, None]).any(1).astype(float)
    popularity = data.popularity[items]
    return _by_quarter(f"Recall@{cutoff} by popularity", hits, popularity, "test items")


def _relation(recommender: Recommender, groups: Mapping[Any, str] | None) -> list[tuple[str, str]]:
    heading = "The relation"
    try:
        found = diagnose(recommender)
    except NoDiagnosisError as error:
        return [(heading, page.paragraph(str(error)))]
    kind = "warning" if "constant" in str(found) else ""
    own = heading, page.paragraph(str(found), kind)
    return [own, *attention.sections(found, recommender, groups)]


def _map(recommender: Recommender, groups: Mapping[Any, str] | None) -> str:
    """Draw items by the two directions in which their points differ most."""
    data = recommender.dataset
    rows = np.flatnonzero(recommender.trained_items)
    rows = rows[np.argsort(-data.popularity[rows], kind="stable")][:_MAPPED]
    points = recommender.item_vectors()[rows].astype(np.float64)
    points -= points.mean(0)
    _, sizes, directions = np.linalg.svd(points, full_matrices=False)
    share = (sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-30)
    genres = {} if groups is not None else described.genres(recommender.config.data, data)
    known = _rarest(genres) if groups is None else {str(x): name for x, name in groups.items()}
    if known:
        names = [known.get(str(item), "unknown") for item in data.item_ids[rows].tolist()]
    else:
        quarter = np.argsort(np.argsort(data.popularity[rows])) * len(_QUARTERS) // len(rows)
        names = [f"{_QUARTERS[number]} popular" for number in quarter]
    drawn = charts.points(
        "Items", points @ directions[:2].T, names, f"{share:.0%} of how their points differ"
    )
    text = f"The {len(rows):,} most popular items by the two directions in which they differ most."
    if genres:
        text += " Of several genres of an item, the rarest colours it."
    return page.paragraph(text) + page.charts([drawn])


def _rarest(genres: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Choose the genre of each item that says most of it."""
    counts = collections.Counter(genre for of_item in genres.values() for genre in of_item)
    return {item: min(of_item, key=counts.__getitem__) for item, of_item in genres.items()}


def _users(recommender: Recommender) -> str:
    """Show users of low, middle and high activity: what they have, what they get, and why."""
    data = recommender.dataset
    active = np.flatnonzero(data.train.counts)
    ordered = active[np.argsort(data.train.counts[active], kind="stable")]
    places = np.linspace(0.1, 0.9, _SHOWN) * (len(ordered) - 1)
    shown = dict.fromkeys(ordered[places.astype(int)].tolist())
    return "\n".join(_user(recommender, data.user_ids[row].item()) for row in shown)


def _user(recommender: Recommender, user: int | str) -> str:
    history = recommender.history(user)
    top = recommender.recommend([user], min(_LISTED, recommender.dataset.num_items))
    named = {"item": "item", "title": "title"}
    why = ""
    if top.height:
        explained = recommender.explain(user, top["item"][0], 5)
        why = "<h3>Why the first</h3>" + _why(explained.history, explained.nearest, named)
    return (
        f'<div class="user"><h3>User {page.text(user)} has {history.height} items, such as</h3>'
        + page.frame(history.head(_LISTED), named)
        + "<h3>and is recommended</h3>"
        + page.frame(top, {"rank": "rank", **named, "score": "score"})
        + why
        + "</div>"
    )


def _why(history: pl.DataFrame, nearest: pl.DataFrame, named: Mapping[str, str]) -> str:
    if history.height:
        text = "Of the history, what brings it nearer (below 0) or moves it away:"
        shown = page.frame(history, {**named, "contribution": "adds to the distance"})
        return page.paragraph(text, "note") + shown
    text = "What the user has that is nearest to it:"
    return page.paragraph(text, "note") + page.frame(nearest, {**named, "distance": "distance"})
