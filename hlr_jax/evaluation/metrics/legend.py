"""What each metric says, in a line for people; and which ones are variants of papers."""

from collections.abc import Iterable

MEANINGS = {
    "ndcg": "how early the wanted items come; 1 if they all come first",
    "recall": "share of a user's wanted items that are in the list",
    "precision": "share of the list that is wanted",
    "hit_rate": "share of users with a wanted item in the list",
    "mrr": "1 divided by the place of the first wanted item",
    "map": "mean precision at the places of the wanted items",
    "coverage": "share of the catalogue that is in anybody's list",
    "median_popularity": "how many users the middle item of a list has in training",
    "recall_capped": "recall, 1 where the list is full of hits (Liang et al.)",
    "ndcg_local": "NDCG against the same list in its best order (HLR)",
    "mrr_all_hits": "1 divided by the place, added up over all wanted items (HLR)",
    "map_list_length": "MAP, divided by the length of the list (HLR)",
    "mmr": "how many users the middle one of all items in any list has (HLR)",
}
# Papers measure by these variants; other metrics are standard.
OF_PAPERS = ("recall_capped", "ndcg_local", "mrr_all_hits", "map_list_length", "mmr")


def _base(name: str) -> str:
    """Return the name of a metric without its cutoff."""
    return name.partition("@")[0]


def is_standard(name: str) -> bool:
    """Tell whether a metric, or anything else of a summary, is no variant of a paper."""
    return _base(name) not in OF_PAPERS


def legend(names: Iterable[str]) -> dict[str, str]:
    """Say what these metrics mean, each once however many cutoffs it has.

    Args:
      names: of a summary; those that are no metrics are left out.
    """
    bases = dict.fromkeys(map(_base, names))
    return {name: MEANINGS[name] for name in bases if name in MEANINGS}
