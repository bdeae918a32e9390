"""The loss of validation interactions, which epochs may be selected by."""

from hlr_jax.training.epoch import sum_of_loss
from hlr_jax.training.inputs import Positives, ordered_rows
from hlr_jax.training.loop import Program
from hlr_jax.training.state import Keys, mean_of
from hlr_jax.types import Params


def mean_loss(program: Program, params: Params, positives: Positives) -> float:
    """Compute the mean loss per term over all positives, with the run's validation negatives."""
    config, placement = program.config, program.placement
    key = Keys.of(config.seed).valid
    rows = ordered_rows(positives, config.training.batch_size, key)
    recipe = program.placed_recipe
    # There are no terms where users have seen all of a few shared negatives.
    return mean_of(*sum_of_loss(params, rows, recipe, placement.layout, placement.mesh))
