"""Numbers of a configuration are traced: another value of one compiles nothing."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import pytest
from support.small_runs import config_of, differ, train

from hlr_jax.config import (
    Config,
    GeometryConfig,
    LossConfig,
    OptimizerConfig,
    SamplingConfig,
)
from hlr_jax.functional.geometry import GEOMETRIES
from hlr_jax.functional.losses import LOSSES
from hlr_jax.models.registry import RELATIONS
from hlr_jax.registry import Registry, is_number
from hlr_jax.sampling.samplers import SAMPLERS
from hlr_jax.training import epoch

# What JAX reports when it turns a traced function into a program, and its name.
LOWERING = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@contextlib.contextmanager
def lowered_programs() -> Iterator[list[str]]:
    """The names of the programs that are lowered meanwhile."""
    names: list[str] = []

    def note(event: str, seconds: float, **details: Any) -> None:
        if event == LOWERING:
            names.append(str(details.get("fun_name", "?")))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def changed(config: Config, field: str, value: float) -> Config:
    """The same configuration with another value of a field or option, as `loss.margin`."""
    section, _, name = field.partition(".")
    if not name:
        return dataclasses.replace(config, **{field: value})
    fields = getattr(config, section)
    known = {f.name for f in dataclasses.fields(fields)}
    if name in known:
        fields = dataclasses.replace(fields, **{name: value})
    else:
        fields = dataclasses.replace(fields, options={**fields.options, name: value})
    return dataclasses.replace(config, **{section: fields})


def assert_one_program(config: Config, values: dict[str, float]) -> None:
    """Whole runs: after the first, runs with other values lower no program, and do differ."""
    first = train(config)
    for field, value in values.items():
        with lowered_programs() as names:
            other = train(changed(config, field, value))
        assert names == [], field
        assert differ(first, other), field


def test_ten_learning_rates_compile_one_program_of_each_kind(monkeypatch):
    traced: list[Any] = []
    steps = epoch._steps

    def noted(*args: Any) -> Any:
        traced.append(args)
        return steps(*args)

    monkeypatch.setattr(epoch, "_steps", noted)
    with lowered_programs() as names:
        train(config_of("cml", epochs=1, negatives=3))
        first = list(names)
        for rate in range(2, 11):
            train(config_of("cml", epochs=1, negatives=3, learning_rate=rate / 100))
    assert len(traced) == 1
    assert first
    assert names == first


def test_numbers_of_loss_sampling_and_optimizer_compile_nothing():
    config = dataclasses.replace(
        config_of("cml", epochs=2),
        loss=LossConfig(name="warp", user_weight_exponent=0.5, covariance=0.1, uniformity=0.2),
        sampling=SamplingConfig(
            negatives="shared", options={"num_negatives": 5, "popularity_exponent": 0.5}
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=0.03,
            schedule="exponential",
            warmup_epochs=0.2,
            gradient_clip=1.0,
            weight_decay=0.1,
            weight_decay_exponent=0.5,
        ),
    )
    values = {
        "optimizer.learning_rate": 0.05,
        "optimizer.decay_rate": 0.5,
        "optimizer.warmup_epochs": 0.4,
        "optimizer.gradient_clip": 0.5,
        "optimizer.weight_decay": 0.3,
        "optimizer.weight_decay_exponent": -0.5,
        "loss.margin": 0.7,
        "loss.user_weight_exponent": 1.0,
        "loss.covariance": 0.2,
        "loss.uniformity": 0.4,
        "sampling.popularity_exponent": 0.75,
        "geometry.radius": 0.5,
        "seed": 5,
    }
    assert_one_program(config, values)


def test_numbers_of_geometry_and_memory_compile_nothing():
    config = dataclasses.replace(
        config_of("lrml", {"clip_memory": 0.5}, epochs=2),
        geometry=GeometryConfig("lorentz"),
        loss=LossConfig(name="softmax"),
        sampling=SamplingConfig(negatives="full_catalog"),
    )
    values = {
        "geometry.curvature": 0.5,
        "geometry.radius": 0.6,
        "loss.temperature": 0.1,
        "loss.user_weight_exponent": 0.5,
        "model.clip_memory": 0.4,
        "model.clip_key": 0.3,
    }
    assert_one_program(config, values)


def test_numbers_of_penalties_compile_nothing():
    config = dataclasses.replace(
        config_of("transcf", epochs=2),
        loss=LossConfig(name="contrastive"),
        optimizer=OptimizerConfig(learning_rate=0.01, schedule="cosine"),
    )
    values = {
        "loss.negative_weight": 10.0,
        "loss.margin": 0.7,
        "model.alpha_nbr": 0.3,
        "model.alpha_dist": 0.0,
        "optimizer.schedule_epochs": 7,
    }
    assert_one_program(config, values)


@pytest.mark.parametrize(
    "registry", [GEOMETRIES, LOSSES, RELATIONS, SAMPLERS], ids=lambda r: r.kind
)
def test_all_float_options_are_traced(registry: Registry[Any]):
    """Whatever is registered: as arrays of the tree, whose structure other values leave alone."""
    fixed = {"dim": 6} if registry is RELATIONS else {}
    for name in registry.names():
        cls, options = registry.get(name), registry.options(name)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        numbers = {n: value for n, value in options.items() if is_number(cls, fields[n])}
        floats = {n for n, value in options.items() if isinstance(value, float)}
        assert numbers.keys() == floats - set(cls.static), name
        built = cls(**options, **fixed)
        others = cls(**options | {n: value + 0.25 for n, value in numbers.items()}, **fixed)
        assert jax.tree.structure(built) == jax.tree.structure(others), name
        leaves = jax.tree.leaves(others)
        for value in numbers.values():
            assert value + 0.25 in leaves, name
