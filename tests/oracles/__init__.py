"""Independent oracles: float64 NumPy and loops, written from the equations.

Nothing here is fast and nothing here is shared with the library. Each function is one equation of
the papers, so that it can be read beside them:

- CML: Hsieh et al., "Collaborative Metric Learning", WWW 2017.
- LRML: Tay et al., "Latent Relational Metric Learning via Memory-based Attention", WWW 2018.
- HLR and HLR++: Tran et al., "Hierarchical Latent Relation Modeling for Collaborative Metric
  Learning", RecSys 2021.
- AdaCML: Zhang et al., "Adaptive Collaborative Metric Learning", DASFAA 2019.
- TransCF: Park et al., "Collaborative Translational Metric Learning", ICDM 2018.
- CPE: Bao et al., "Collaborative Preference Embedding against Sparse Labels", ACM MM 2019.
- DPCML: Bao et al., "The Minority Matters: A Diversity-Promoting Collaborative Metric Learning
  Algorithm", NeurIPS 2022. A row of its user table is C vectors, one after another.
- DirectAU: Wang et al., "Towards Representation Alignment and Uniformity in Collaborative
  Filtering", KDD 2022.
- SFCML: Bao et al., "Rethinking Collaborative Metric Learning: Toward an Efficient Alternative
  without Negative Sampling", TPAMI 2022.

Letters: ``u`` a user vector, ``i`` a target item vector (positive or negative), ``p_k`` the
vectors of the history, ``key`` of shape ``[d, M]``, ``memory`` of shape ``[M, d]``. A history given
as item numbers uses ``-1`` for an empty place; a history given as vectors holds valid ones only.
"""

from oracles.arrays import Array, Params
from oracles.attention import (
    attend,
    formed_slots,
    latent_relation,
    memory_attention,
    smoothed_attention,
)
from oracles.distances import project, project_on_sphere, squared_distance
from oracles.geometries import BALL, Ball, Geometry, Lorentz, Sphere, pairwise
from oracles.losses import (
    Loss,
    loss_of_distances,
    loss_of_row,
    sampled_softmax,
    sampling_free_loss,
    shared_negatives_loss,
    top_k_threshold,
    warp_weight,
)
from oracles.objective import batch_distances, batch_loss, triplet_distances
from oracles.optimizers import adam_steps_dense, decay_factors, numerical_gradient
from oracles.ranking import rank_scores, top_k
from oracles.regularizers import (
    covariance_penalty,
    dpcml_diversity,
    dpcml_penalty,
    feature_penalty,
    feature_points,
    slot_similarity,
    transcf_penalty,
    uniformity,
)
from oracles.relations import (
    RelationFn,
    adacml_relation,
    cml_relation,
    dpcml_relation,
    history_mean_relation,
    hlr_relation,
    hlrpp_relation,
    items_only_relation,
    lrml_relation,
    multi_head_relation,
    nearest_items_relation,
    recent_items_relation,
    relation_function,
    rotation_relation,
    transcf_neighbours,
    transcf_relation,
)
from oracles.rows import embedded_table, first_vector, history_vectors, user_vectors
from oracles.samplers import negative_probabilities, unseen_negatives, user_weight

__all__ = [
    "BALL",
    "Array",
    "Ball",
    "Geometry",
    "Lorentz",
    "Loss",
    "Params",
    "RelationFn",
    "Sphere",
    "adacml_relation",
    "adam_steps_dense",
    "attend",
    "batch_distances",
    "batch_loss",
    "cml_relation",
    "covariance_penalty",
    "decay_factors",
    "dpcml_diversity",
    "dpcml_penalty",
    "dpcml_relation",
    "embedded_table",
    "feature_penalty",
    "feature_points",
    "first_vector",
    "formed_slots",
    "history_mean_relation",
    "history_vectors",
    "hlr_relation",
    "hlrpp_relation",
    "items_only_relation",
    "latent_relation",
    "loss_of_distances",
    "loss_of_row",
    "lrml_relation",
    "memory_attention",
    "multi_head_relation",
    "nearest_items_relation",
    "negative_probabilities",
    "numerical_gradient",
    "pairwise",
    "project",
    "project_on_sphere",
    "rank_scores",
    "recent_items_relation",
    "relation_function",
    "rotation_relation",
    "sampled_softmax",
    "sampling_free_loss",
    "shared_negatives_loss",
    "slot_similarity",
    "smoothed_attention",
    "squared_distance",
    "top_k",
    "top_k_threshold",
    "transcf_neighbours",
    "transcf_penalty",
    "transcf_relation",
    "triplet_distances",
    "uniformity",
    "unseen_negatives",
    "user_vectors",
    "user_weight",
    "warp_weight",
]
