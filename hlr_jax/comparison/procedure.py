"""Compare trained models and baselines on a split: check that they can be, measure, and test."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from hlr_jax.comparison.folders import Measurable, Plan, open_folder
from hlr_jax.comparison.groups import Group, grouped
from hlr_jax.comparison.result import Comparison, Entry, paired_tests
from hlr_jax.config import DataConfig
from hlr_jax.data.dataset import Dataset
from hlr_jax.data.interactions import Interactions
from hlr_jax.errors import InputError
from hlr_jax.evaluation import metrics
from hlr_jax.evaluation.evaluate import check_cutoffs
from hlr_jax.parallel import processes
from hlr_jax.progress import shown

_BOOTSTRAP = 1000


def compare(
    folders: Sequence[str | pathlib.Path],
    split: str = "test",
    metrics: Sequence[str] = (),
    against: str = "",
    refitted: bool = True,
    dataset: Dataset | None = None,
) -> Comparison:
    """Compare runs and baselines user by user.

    Runs that differ in their seed alone count as one, each user with the mean over seeds. Values of
    users that are stored with the results are taken where they are of the same data; otherwise
    models are loaded, and baselines fitted again with the hyperparameters that were found.

    Args:
      folders: which training, or the tuning of baselines, wrote.
      split: `test` or `valid`. On validation a model is measured that was not trained on it.
      metrics: names with cutoffs; by default ndcg@10 with recall@10, or with hit_rate@10 where
        the one test item is ranked among given negatives.
      against: the name of the entry to test the others against, or one of its folders; by default
        the first; "all" for all pairs.
      refitted: False measures on test the models that were selected on validation, without their
        refit.
      dataset: what all were trained on; by default what the folders of runs keep, and what the
        configurations of baselines say.

    Raises:
      InputError: a folder holds nothing finished, or what they hold cannot be compared: other
        data, another protocol, or training with and without validation.
    """
    if isinstance(folders, str | pathlib.Path):
        raise InputError(f"folders={str(folders)!r}: give a list of folders")
    if split not in ("valid", "test"):
        raise InputError(f"split={split!r}: use valid or test")
    if processes.count() > 1:
        raise InputError("comparisons are made by one process; start it alone")
    found = [open_folder(folder) for folder in folders]
    groups = grouped(found)
    if len(groups) < 2:
        raise InputError(
            "there is nothing to compare: give two folders or more, of different configurations"
            + (f" (those given are seeds of {groups[0].name})" if len(found) > 1 else "")
        )
    reference = _reference(against, groups)
    plan = _plan(found, split, metrics, refitted)
    _check_training(found, plan)
    data = _loaded(found, dataset)
    usual = data[found[0].folder]
    check_cutoffs(plan.cutoffs, usual, f"--metrics={','.join(plan.metrics)}")
    entries = []
    with shown(len(groups), "entries", "measuring") as bar:
        for group in groups:
            entries.append(_measured(group, data, plan))
            bar.advance()
    _check_users(entries, plan)
    pairs = [pair for metric in plan.metrics for pair in paired_tests(entries, metric, reference)]
    return Comparison(plan, usual.name, reference, entries, pairs)


def _reference(against: str, groups: Sequence[Group]) -> str:
    names = [group.name for group in groups]
    if against in ("all", *names):
        return against
    if not against:
        return names[0]
    for group in groups:
        if pathlib.Path(against).resolve() in [m.folder.resolve() for m in group.members]:
            return group.name
    raise InputError(f"--against={against}: use all, or one of {', '.join(names)}")


def _plan(found: Sequence[Measurable], split: str, asked: Sequence[str], refitted: bool) -> Plan:
    """Find what to measure, which all can be measured by."""
    protocols = {member.protocol: member.folder for member in found}
    if split == "test" and len(protocols) > 1:
        one, other = (f"{folder} is {protocol}" for protocol, folder in protocols.items())
        raise InputError(
            f"config.evaluation.protocol: {one} and {other}; measure them alike, by the same "
            "training commands with one protocol (nothing is trained again)"
        )
    # Negatives are given for the test split alone.
    protocol = found[0].protocol if split == "test" else "full"
    usual = ("ndcg@10", "hit_rate@10" if protocol == "sampled" else "recall@10")
    plan = Plan(split, protocol, tuple(dict.fromkeys(asked or usual)), refitted)
    for metric in plan.metrics:
        name, _ = metrics.parse(metric, "--metrics")
        if protocol == "sampled" and name not in metrics.OF_ONE_POSITIVE:
            raise InputError(
                f"--metrics={metric}: the sampled protocol has "
                f"{', '.join(metrics.OF_ONE_POSITIVE)} only"
            )
    return plan


def _check_training(found: Sequence[Measurable], plan: Plan) -> None:
    """Refuse what was trained on validation: on validation, or beside what was not.

    On test the interactions of validation are an advantage that has nothing to do with the model.
    """
    refit = [member for member in found if member.is_refit(plan)]
    others = [member for member in found if not member.is_refit(plan)]
    if refit and plan.split == "valid":
        raise InputError(
            f"{refit[0].folder}: was trained on validation (config.data.join_valid=True), and "
            "cannot be measured there; use --split=test"
        )
    if refit and others:
        raise InputError(
            f"{refit[0].folder} was trained on validation too and {others[0].folder} was not; "
            "refit all (config.training.refit, or --refit for a baseline), or compare the models "
            "from before their refit with --refitted=false"
        )


def _loaded(found: Sequence[Measurable], dataset: Dataset | None) -> dict[pathlib.Path, Dataset]:
    """Load the data of all, by folder, which may differ in features, and in nothing else."""
    if dataset is not None:
        return {member.folder: dataset for member in found}
    loaded: dict[pathlib.Path, Dataset] = {}
    # Seeds of a model have one data set, which need not be in memory for each.
    shared: dict[tuple[DataConfig, str], Dataset] = {}
    first = found[0]
    for member in found:
        data = member.load_data()
        if loaded and (differing := _differing(loaded[first.folder], data)):
            raise InputError(
                f"{member.folder}: has other {differing} than {first.folder}; compare runs on "
                "the same data and split (the same config.data)"
            )
        loaded[member.folder] = shared.setdefault((member.data, data.digest), data)
    return loaded


def _differing(one: Dataset, other: Dataset) -> str:
    """Name what differs between two data sets, besides features; nothing if they are the same.

    The digest that a run keeps of its data does not cover the test split, so all is looked at.
    """
    nothing = np.zeros(0, np.int32)
    parts = {
        "users": (one.user_ids, other.user_ids),
        "items": (one.item_ids, other.item_ids),
        "given negatives": tuple(
            nothing if data.given_negatives is None else data.given_negatives
            for data in (one, other)
        ),
    }
    for part in ("train", "valid", "test", "given"):
        a, b = getattr(one, part), getattr(other, part)
        parts[f"{part} interactions"] = (_pairs_of(a), _pairs_of(b))
    return next((name for name, (a, b) in parts.items() if not np.array_equal(a, b)), "")


def _pairs_of(interactions: Interactions) -> np.ndarray:
    return np.concatenate([interactions.offsets, interactions.items])


def _measured(group: Group, data: Mapping[pathlib.Path, Dataset], plan: Plan) -> Entry:
    members = group.members
    of_seeds = [member.measure(data[member.folder], plan) for member in members]
    values = {metric: over_seeds([found[metric] for found in of_seeds]) for metric in plan.metrics}
    summary = metrics.summarize(values, _BOOTSTRAP)
    return Entry(
        name=group.name,
        kind=members[0].kind,
        label=members[0].label,
        folders=[str(member.folder) for member in members],
        seeds=[member.seed for member in members],
        values=values,
        of_seeds={m: [_mean(found[m]) for found in of_seeds] for m in plan.metrics},
        means={metric: summary[metric] for metric in plan.metrics},
        intervals={metric: summary["intervals"][metric] for metric in plan.metrics},
        diagnoses=[
            found for member in members for found in member.diagnoses(data[member.folder], plan)
        ],
    )


def over_seeds(values: Sequence[Float[np.ndarray, "users"]]) -> Float[np.ndarray, "users"]:
    """Average users' values over seeds; NaN where a seed has none, as the others are other seeds.

    Rounded, because sums of the same numbers in another order differ in their last digit, and users
    for whom two entries are level would count as better or worse.
    """
    return np.mean(values, axis=0).round(9)


def _mean(values: Float[np.ndarray, "users"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.sum() / max(1, len(known)))


def _check_users(entries: Sequence[Entry], plan: Plan) -> None:
    """Raise InputError where there are too few users for a test of two entries."""
    for metric in plan.metrics:
        known = [~np.isnan(entry.values[metric]) for entry in entries]
        for one, other in itertools.combinations(known, 2):
            if (one & other).sum() < 2:
                raise InputError(
                    f"--metrics={metric}: fewer than two users have a value of both of two "
                    "entries, and there is nothing to test; use another metric"
                )
