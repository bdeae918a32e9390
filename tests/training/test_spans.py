"""Spans of steps: sent before the last one is read, timed without anything else, and checked."""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from support.small_runs import STEPS, Run, config_of

from hlr_jax.errors import DivergedError
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


@pytest.mark.parametrize("seconds", [0.0, 60.0], ids=["single steps", "growing spans"])
@pytest.mark.parametrize("step", [0, 5, STEPS - 1, STEPS + 6])
@pytest.mark.parametrize("where", ["loss", "parameters"])
def test_divergence_is_noticed_a_span_late_and_said_to_be_where_it_was(
    where, step, seconds, monkeypatch
):
    """The loss in any span; the parameters with the loss of the next step, or an epoch's end."""
    sent: list[tuple[int, int]] = []

    def spoiled(state: TrainState, rows: Any, span: Any, *args: Any) -> TrainState:
        start = int(state.step)
        state = advance(state, rows, span, *args)
        sent.append((start, int(state.step)))
        if not start <= step < int(state.step):
            return state
        if where == "loss":
            return state.replace(loss_sum=state.loss_sum * jnp.nan)
        return state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))

    monkeypatch.setattr(loop, "advance", spoiled)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", seconds)
    with pytest.raises(DivergedError) as caught:
        Run.of(config_of()).fit()
    found = re.search(r"in epoch (\d), at most (\d+) steps after step (\d+);", str(caught.value))
    assert found
    epoch, steps, start = map(int, found.groups())
    assert epoch == 1 + step // STEPS
    (spoiled_at,) = [i for i, (first, stop) in enumerate(sent) if first <= step < stop]
    ends_epoch = sent[spoiled_at][1] % STEPS == 0
    told = spoiled_at if where == "loss" or ends_epoch else spoiled_at + 1
    assert (start, start + steps) == sent[told]
    # The span in flight, if the epoch has one, is the last.
    assert len(sent) - 1 == (told if sent[told][1] % STEPS == 0 else told + 1)
