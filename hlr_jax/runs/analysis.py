"""What the attention of a trained memory depends on: genres, ratings, times.

LRML's paper (Tay et al., WWW 2018) shows that mean slot weights differ between genres, ratings and
times, HLR's (Tran et al., RecSys 2021) that interactions with like relations have genres in common.
Both are computed here, each with what it would be if there were nothing to see; and with the
diagnosis of the relation, because the attention of a memory whose relation is a constant moves no
item, whatever it depends on.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int

from hlr_jax import facts
from hlr_jax.data import described
from hlr_jax.data.columns import every_column
from hlr_jax.data.groupings import Grouping, groupings
from hlr_jax.errors import InputError
from hlr_jax.evaluation.dependence import Dependence, dependence, information
from hlr_jax.evaluation.matching import interaction_tags, matching
from hlr_jax.evaluation.relation_pairs import PairRelations, relations_of_pairs
from hlr_jax.models.registry import RELATIONS
from hlr_jax.models.relation import Relation
from hlr_jax.runs.diagnosis import Diagnosis, diagnose
from hlr_jax.runs.recommender import Recommender

# Interactions that are drawn, if there are as many.
MOST_GROUPED, MOST_MATCHED = 20_000, 10_000
# Attention is said to depend on groups where fewer permutations than this share reach it.
LEVEL = 0.01


class NoLabelsError(InputError):
    """Nothing is known of interactions that they could be grouped by."""


class NoMemoryError(InputError):
    """There is no memory whose attention could be analysed."""


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What the attention of a memory depends on.

    Attributes:
      diagnosis: of the relation.
      dependence: a row for each kind of groups, `by`: how many `groups` and `interactions`; how
        many `bits` they tell of the slot that is attended to, and of these what users or items do
        not add (`tested`), its mean where groups are `permuted_among` items, users or the items of
        users, and how often chance reaches it (`permuted`, `p`); whether attention `depends` on
        them (`p < .01`); `most`, the bits that single interactions tell, which no groups exceed;
        and `share`, of these, by which `tested` exceeds `permuted`: how much attention depends on
        them. See `hlr_jax.evaluation.dependence`.
      weights: mean weights: columns `by`, `group`, `interactions`, `memory`, `slot`, `weight`.
        Those of a group add up to 1.
      matching: matching probabilities: columns `nearest` ("relation", "item", "user", "random"),
        `probability`, `apart` (of other users and other items) and their standard errors, `error`
        and `apart_error`; see `hlr_jax.evaluation.matching`. No rows where items have no tags.
    """

    diagnosis: Diagnosis
    dependence: pl.DataFrame
    weights: pl.DataFrame
    matching: pl.DataFrame

    @property
    def verdict(self) -> str:
        """What attention depends on, and how much, in a sentence without a full stop."""
        said = [
            f"{by} explains {f'{100 * share:.2g} %' if depends else 'nothing'}"
            for by, depends, share in self.dependence.select("by", "depends", "share").rows()
        ]
        sentence = f"Of how attention differs between interactions, {', '.join(said)}"
        if self.diagnosis.is_constant:
            return (
                f"{sentence}; but the relation is a constant: rankings do not depend on attention"
            )
        return sentence

    def __str__(self) -> str:
        lines = [f"{self.verdict}.", str(self.diagnosis)]
        lines += [_of_groups(row) for row in self.dependence.iter_rows(named=True)]
        lines += [_of_matching(row) for row in self.matching.iter_rows(named=True)]
        return "\n".join(lines)


def _of_groups(row: Mapping[str, Any]) -> str:
    return (
        f"{row['by']}: {row['groups']} groups of {row['interactions']} interactions tell "
        f"{row['bits']:.2g} bits of the slot, of {row['most']:.2g} that each by itself tells; "
        f"tested {row['tested']:.2g}, permuted among {row['permuted_among']} "
        f"{row['permuted']:.2g} (p {row['p']:.3f})"
    )


def _of_matching(row: Mapping[str, Any]) -> str:
    nearest = "random" if row["nearest"] == "random" else f"nearest by {row['nearest']}"
    return (
        f"{nearest}: {row['probability']:.1%} have a tag in common, "
        f"{row['apart']:.1%} (+- {row['apart_error']:.1%}) of other users and items"
    )


def analyse(recommender: Recommender, groups: Any = None) -> Analysis:
    """Say what the attention of a trained memory depends on, for interactions it has not seen.

    Interactions that the model was trained on or selected by are left out, because what they have
    in common may be just that. Ratings too low for training are among those that are left.

    Args:
      groups: a frame with a column `item` and others that say of what genre, rating and so on an
        interaction is: numbers, texts, lists of texts, and times as `timestamp` (see
        `hlr_jax.data.groupings`). With a column `user`, rows are interactions, else they are items,
        whose test interactions are taken. Left out, genres, ratings and times are those of the raw
        files of the data set, if they are on this machine.

    Raises:
      NoMemoryError: the model has no memory.
      NoDiagnosisError: its relation cannot be diagnosed.
      NoLabelsError: no groups are given, and nothing is known of interactions.
      InputError: a column cannot be used.
    """
    # Before the diagnosis, because a model without a relation has no memory either.
    _check_memory(recommender)
    return analyse_beside(diagnose(recommender), recommender, groups)


def analyse_beside(diagnosis: Diagnosis, recommender: Recommender, groups: Any) -> Analysis:
    """Do what `analyse` does, given the diagnosis of the relation.

    Raises:
      InputError: as `analyse`.
    """
    _check_memory(recommender)
    rows = _labelled(recommender, groups)
    users, items, found = _groups_of(recommender, rows)
    known = recommender.dataset.known("test")
    measured = relations_of_pairs(recommender.ranker, known, users, items)
    weights = np.concatenate(list(measured.slots.values()), axis=1).astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    tested, means = [], []
    for grouping in found:
        has = grouping.shares.any(axis=1)
        of_groups = grouping._replace(shares=grouping.shares[has])
        test = dependence(weights[has], of_groups.shares, users[has], items[has])
        tested.append((of_groups, test, information(weights[has])))
        means.append(_mean_weights(of_groups, weights[has], measured))
    of_items = [grouping.name for grouping, test, _ in tested if test.among == "items"]
    return Analysis(
        diagnosis,
        pl.DataFrame([_tested(*one) for one in tested]),
        pl.concat(means),
        _matching(recommender, rows, of_items[:1]),
    )


def _check_memory(recommender: Recommender) -> None:
    """Raise NoMemoryError where a model does not say which slots are in its relation."""
    if _says_slots(type(recommender.model)):
        return
    those = ", ".join(name for name in RELATIONS.names() if _says_slots(RELATIONS.get(name)))
    raise NoMemoryError(
        f"config.model.name={recommender.config.model.name!r}: has no memory whose attention could "
        f"be analysed; these have: {those}"
    )


def _says_slots(model: type[Relation]) -> bool:
    return model.slot_weights is not Relation.slot_weights


# ---------------------------------------------------------------------------------------------
# Which interactions, and what is known of them.


def _labelled(recommender: Recommender, groups: Any) -> pl.DataFrame:
    """Collect interactions: numbers of the user and the item, `#user` and `#item`, and labels."""
    data, config = recommender.dataset, recommender.config.data
    test = pl.DataFrame({"#user": data.test.users, "#item": data.test.items})
    if groups is None:
        frame = described.interactions(config, data)
        frame = _numbered(recommender, frame) if frame.height else test
        genres = described.genres(config, data)
        of_items = [genres.get(str(item)) for item in data.item_ids.tolist()]
        if genres:
            labels = pl.Series("genre", of_items, pl.List(pl.String))
            frame = frame.insert_column(0, labels.gather(frame["#item"]))
        if frame.width > 2:
            return frame
        raise NoLabelsError(
            f"groups: nothing is known of the interactions of data set {data.name!r}; give a frame "
            "with the column item, maybe user, and genres, ratings or timestamps"
        )
    columns = every_column(groups)
    if "item" not in columns or not columns.keys() - {"user", "item"}:
        raise InputError(
            f"groups: the frame has the columns {', '.join(columns) or 'none'}; give item, maybe "
            "user, and what to group them by"
        )
    if taken := {"#user", "#item"} & columns.keys():
        raise InputError(f"groups: {min(taken)} cannot be the name of a column; rename it")
    given = pl.DataFrame(columns)
    frame = _numbered(recommender, given)
    if given.height and not frame.height:
        raise InputError(
            f"groups: no row has ids of data set {data.name!r}, whose items are "
            f"{facts.some(data.item_ids[:4].tolist())}"
        )
    if "user" in columns:
        return frame
    twice = frame["#item"].is_duplicated()
    if twice.any():
        item = data.item_ids[frame["#item"].filter(twice)[0]]
        raise InputError(
            f"groups: item {item} has several rows; give each item one, with a list where it has "
            "several genres"
        )
    return test.join(frame, on="#item", maintain_order="left")


def _numbered(recommender: Recommender, frame: pl.DataFrame) -> pl.DataFrame:
    """Put numbers in the place of ids; rows of ids that the data set does not have are dropped."""
    data = recommender.dataset
    for name, rows_of in (("user", data.user_rows), ("item", data.item_rows)):
        if name in frame.columns:
            ids = frame[name].unique()
            numbers = pl.DataFrame({name: ids, f"#{name}": rows_of(ids.to_list())})
            frame = frame.join(numbers, on=name, maintain_order="left").drop(name)
            frame = frame.filter(pl.col(f"#{name}") >= 0)
    return frame


def _groups_of(
    recommender: Recommender, rows: pl.DataFrame
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], list[Grouping]]:
    """Draw unseen interactions, and group them."""
    data = recommender.dataset
    users, items = (rows[name].to_numpy() for name in ("#user", "#item"))
    codes = users.astype(np.int64) * data.num_items + items
    unseen = ~np.isin(codes, data.known("test").codes)
    unseen &= (data.train.counts > 0)[users] & recommender.trained_items[items]
    drawn = _drawn(recommender, np.flatnonzero(unseen), MOST_GROUPED)
    chosen = rows[drawn]
    columns = chosen.drop("#user", "#item").to_dict()
    found = groupings(columns)
    if not found:
        raise InputError(
            f"groups: {len(drawn)} interactions are left that the model was not trained on, all "
            f"of one group ({', '.join(columns)}); give others"
        )
    if len(np.unique(users[drawn])) == len(drawn):
        raise InputError(
            f"groups: each of {len(drawn)} users has one interaction that the model was not "
            "trained on, which does not tell users from groups; give a frame with several of each"
        )
    return users[drawn], items[drawn], found


def _drawn(recommender: Recommender, rows: Int[np.ndarray, "n"], most: int) -> Int[np.ndarray, "m"]:
    rng = np.random.default_rng(recommender.config.seed)
    return np.sort(rng.permutation(rows)[:most])


# ---------------------------------------------------------------------------------------------
# Tables.


def _tested(grouping: Grouping, test: Dependence, most: float) -> dict[str, Any]:
    return {
        "by": grouping.name,
        "groups": len(grouping.groups),
        "interactions": len(grouping.shares),
        "bits": test.bits,
        "tested": test.tested,
        "permuted": test.permuted,
        "p": test.p,
        "permuted_among": test.among,
        "depends": test.p < LEVEL,
        "most": most,
        "share": max(0.0, test.tested - test.permuted) / most if most > 0 else 0.0,
    }


def _mean_weights(
    grouping: Grouping, weights: Float64[np.ndarray, "n m"], measured: PairRelations
) -> pl.DataFrame:
    counts = grouping.shares.sum(axis=0)
    means = (grouping.shares.T @ weights) / np.maximum(counts, 1e-30)[:, None]
    names = [(name, slot) for name, x in measured.slots.items() for slot in range(x.shape[1])]
    places, slots = np.repeat(np.arange(len(counts)), len(names)), len(counts) * names
    return pl.DataFrame(
        {
            "by": [grouping.name] * len(slots),
            "group": [grouping.groups[place] for place in places.tolist()],
            "interactions": (grouping.shares > 0).sum(axis=0)[places],
            "memory": [memory for memory, _ in slots],
            "slot": [slot for _, slot in slots],
            "weight": means.ravel(),
        }
    )


def _matching(recommender: Recommender, rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Match test interactions by the tags of their items, the column `by`, if there is one."""
    data, known = recommender.dataset, recommender.dataset.known("test")
    has_user = (data.train.counts > 0)[data.test.users]
    is_known = has_user & recommender.trained_items[data.test.items]
    users, items = data.test.users[is_known], data.test.items[is_known]
    found = {}
    if by:
        tags = _tags_of_items(recommender, rows.unique("#item", keep="first"), by[0])
        of_pairs = interaction_tags(tags, known, users, items)
        drawn = _drawn(recommender, np.flatnonzero(of_pairs.any(axis=1)), MOST_MATCHED)
        users, items, of_pairs = users[drawn], items[drawn], of_pairs[drawn]
        if len(drawn) > 1:
            measured = relations_of_pairs(recommender.ranker, known, users, items)
            vectors = {"relation": measured.relations, "item": recommender.item_vectors()[items]}
            if recommender.model.user_width:
                vectors["user"] = recommender.user_vectors()[users]
            found = matching(vectors, of_pairs, users, items)
    columns = ("probability", "error", "apart", "apart_error")
    of_name = [[getattr(x, column) for x in found.values()] for column in columns]
    schema = {"nearest": pl.String} | dict.fromkeys(columns, pl.Float64)
    return pl.DataFrame([list(found), *of_name], schema)


def _tags_of_items(
    recommender: Recommender, of_items: pl.DataFrame, by: str
) -> Bool[np.ndarray, "i t"]:
    (grouping,) = groupings({by: of_items[by]})
    tags = np.zeros((recommender.dataset.num_items, len(grouping.groups)), bool)
    tags[of_items["#item"].to_numpy()] = grouping.shares > 0
    return tags
