"""Refuse batches of users whose arrays do not fit into the memory of a device."""

from hlr_jax.errors import InputError
from hlr_jax.evaluation.user_batches import largest_batch
from hlr_jax.kernels.sizes import ranking_tile, scoring_sizes
from hlr_jax.models.relation import Relation


def batch_bytes(model: Relation, users: int, items: int, history_length: int) -> int:
    """Estimate what ranking for a batch of users holds, beside tables and interactions.

    Args:
      users: of the batch, on one device.
      items: of a shard.
    """
    floats, table, most = scoring_sizes()
    tile, slots = ranking_tile(users, items), getattr(model, "slots", 0)
    few = min(tile, most)
    # Scores of a tile before and after what is hidden; and distances, of each vector of a user.
    scores = users * tile * (2 + model.user_width // model.dim)
    rows = users * (model.user_width + 2 * history_length * (model.dim + slots))
    # What is computed, and what from: slot weights of users, a table of others, a block of users.
    own = 2 * users * slots * few
    looked_up = 2 * min(table, items * slots * few) if model.uses_history else 0
    held = users * few * max(history_length, 1) * max(slots, 1)
    block = 2 * min(floats, held) if model.reads_item else 0
    return 4 * (scores + rows + own + looked_up + block)


def check_batch(
    model: Relation, users: tuple[int, int], items: int, history_length: int, free: int | None
) -> None:
    """Raise InputError where a batch would not fit, which names the largest that does.

    Args:
      users: of the batch on each group of devices, and how many groups there are.
      free: bytes that a device has left, if known.
    """
    each, groups = users

    def needed(number: int) -> int:
        return batch_bytes(model, number, items, history_length)

    if free is None or needed(each) <= free:
        return
    fits = next((number for number in range(each, 0, -1) if needed(number) <= free), 0)
    remedy = f"use at most {largest_batch(fits, groups)}" if fits else "not even one user fits"
    raise InputError(
        f"config.evaluation.batch_size: ranking {each * groups} users together takes about "
        f"{needed(each) / 2**30:.1f} GiB of each device, of which {free / 2**30:.1f} are free; "
        f"{remedy}"
    )
