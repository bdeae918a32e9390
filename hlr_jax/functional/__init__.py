"""Pure functions on arrays: the maths that every model is composed of, as defined.

What computes the same numbers faster is in `hlr_jax.kernels`.
"""

from hlr_jax.functional.attention import (
    Attention,
    References,
    attend,
    attention_weights,
    history_attention,
    memory_attention,
    pooled_slots,
    reference_attention,
)
from hlr_jax.functional.change import (
    MemoryPairs,
    TwoSidedPairs,
    memory_pairs,
    pooling_change,
    relation_change,
)
from hlr_jax.functional.distance import (
    normalize,
    pairwise_squared_distances,
    project_on_ball,
    squared_distance,
)
from hlr_jax.functional.geometry import Geometry
from hlr_jax.functional.losses import Loss, NegativeDistances
from hlr_jax.functional.losses.contrastive import contrastive
from hlr_jax.functional.losses.cpe import two_sided_hinge
from hlr_jax.functional.losses.hinge import hardest_hinge, rank_weight, triplet_hinge
from hlr_jax.functional.losses.psl import pairwise_softmax
from hlr_jax.functional.losses.sfcml import squared_margin
from hlr_jax.functional.losses.softmax import sampled_softmax
from hlr_jax.functional.losses.softmax_at_k import distance_at_rank
from hlr_jax.functional.regularizers import covariance_divergence, covariance_penalty, uniformity
from hlr_jax.functional.slots import (
    SLOT_FORMS,
    centred_slots,
    orthogonal_slots,
    scaled_slots,
    slot_similarity,
)
from hlr_jax.functional.translation import translate, translated_distance

__all__ = [
    "SLOT_FORMS",
    "Attention",
    "Geometry",
    "Loss",
    "MemoryPairs",
    "NegativeDistances",
    "References",
    "TwoSidedPairs",
    "attend",
    "attention_weights",
    "centred_slots",
    "contrastive",
    "covariance_divergence",
    "covariance_penalty",
    "distance_at_rank",
    "hardest_hinge",
    "history_attention",
    "memory_attention",
    "memory_pairs",
    "normalize",
    "orthogonal_slots",
    "pairwise_softmax",
    "pairwise_squared_distances",
    "pooled_slots",
    "pooling_change",
    "project_on_ball",
    "rank_weight",
    "reference_attention",
    "relation_change",
    "sampled_softmax",
    "scaled_slots",
    "slot_similarity",
    "squared_distance",
    "squared_margin",
    "translate",
    "translated_distance",
    "triplet_hinge",
    "two_sided_hinge",
    "uniformity",
]
