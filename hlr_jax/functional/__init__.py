"""Pure functions on arrays: the maths that every model is composed of."""

from hlr_jax.functional.attention import (
    References,
    attend,
    attention_weights,
    history_attention,
    memory_attention,
)
from hlr_jax.functional.distance import project_on_ball, project_on_sphere, squared_distance
from hlr_jax.functional.hinge import (
    closest_hinge,
    contrastive,
    covariance_divergence,
    covariance_penalty,
    rank_weight,
    semi_hard_hinge,
    squared_margin,
    triplet_hinge,
    two_sided_hinge,
)
from hlr_jax.functional.softmax import sampled_softmax
from hlr_jax.functional.translation import translate, translated_distance

__all__ = [
    "References",
    "attend",
    "attention_weights",
    "closest_hinge",
    "contrastive",
    "covariance_divergence",
    "covariance_penalty",
    "history_attention",
    "memory_attention",
    "project_on_ball",
    "project_on_sphere",
    "rank_weight",
    "sampled_softmax",
    "semi_hard_hinge",
    "squared_distance",
    "squared_margin",
    "translate",
    "translated_distance",
    "triplet_hinge",
    "two_sided_hinge",
]
