"""Spans of steps: sent before the last one is read, and timed without anything else."""

import itertools
from typing import Any

import pytest
from support.small_runs import STEPS, Run, config_of

from hlr_jax.training import loop
from hlr_jax.training.spans import SentSpan
from hlr_jax.training.state import TrainState
from hlr_jax.training.store import MemoryStore

advance, loss_of_span = loop.advance, SentSpan.loss


def test_a_span_is_sent_before_the_loss_of_the_last_one_is_read(monkeypatch):
    events: list[tuple[str, Any]] = []

    def noted_advance(state: TrainState, rows: Any, span: Any, *args: Any) -> TrainState:
        events.append(("sent", span))
        return advance(state, rows, span, *args)

    def noted_loss(span: SentSpan) -> float:
        events.append(("read", (span.start, span.stop)))
        return loss_of_span(span)

    monkeypatch.setattr(loop, "advance", noted_advance)
    monkeypatch.setattr(SentSpan, "loss", noted_loss)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    Run.of(config_of(epochs=2)).fit()

    spans = [(step, step + 1) for step in range(STEPS)]
    epoch = [("sent", spans[0])]
    for last, span in itertools.pairwise(spans):
        epoch += [("sent", span), ("read", last)]
    epoch.append(("read", spans[-1]))
    # What takes no steps compiles the others, once.
    assert events == [("sent", (0, 0)), *epoch, *epoch]


def test_only_training_is_timed(monkeypatch):
    """By a clock that goes on whenever something is done."""

    class Clock:
        now = 0.0

        @classmethod
        def perf_counter(cls) -> float:
            return cls.now

    class Slow(MemoryStore):
        def save(self, *args: Any) -> None:
            Clock.now += 10_000

        def save_best(self, *args: Any) -> None:
            Clock.now += 10_000
            super().save_best(*args)

    def slow_advance(state: TrainState, rows: Any, span: Any, *args: Any) -> TrainState:
        Clock.now += 0.25 if span[1] else 10_000  # Compiles.
        return advance(state, rows, span, *args)

    def slow_loss(span: SentSpan) -> float:
        Clock.now += span.steps
        return loss_of_span(span)

    def validate(params: Any) -> dict[str, float]:
        Clock.now += 10_000
        return {}

    monkeypatch.setattr(loop, "time", Clock)
    monkeypatch.setattr(loop, "advance", slow_advance)
    monkeypatch.setattr(SentSpan, "loss", slow_loss)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    for minutes in (1e-9, 1e9):
        run = Run.of(config_of(epochs=3, checkpoint_minutes=minutes))
        _, progress = run.fit(validate, Slow())
        assert progress.seconds == pytest.approx(3 * STEPS * 1.25)
