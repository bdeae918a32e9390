"""The registry of models: a model is a relation, found by `config.model.name`."""

from hlr_jax.models.relation import FIXED, Relation
from hlr_jax.registry import Registry

RELATIONS: Registry[Relation] = Registry("model", "model.name", FIXED)
