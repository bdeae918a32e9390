"""A batch that does not fit into the memory of a device is explained before training."""

import jax
import pytest
from support.small_runs import Run, config_of

from hlr_jax.errors import InputError
from hlr_jax.parallel import devices
from hlr_jax.training import loop

BATCH = 128
EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."


def held(batch_size: int) -> int:
    """What XLA holds for a step with that batch size."""
    run = Run.of(config_of("hlr", batch_size=batch_size))
    layout, mesh = run.placement.layout, run.placement.mesh
    rows = run.rows(run.placement.num_devices)
    state = run.state(run.placement.num_devices)
    program = loop.device_memory.train_steps_sharded().lower(
        state, rows, (0, 0), run.program.placed_recipe, layout, mesh
    )
    return program.compile().memory_analysis().temp_size_in_bytes


def fault_of(monkeypatch, room: int | None, message: str = EXHAUSTED) -> Exception:
    """What a run says that a device with so much room for steps cannot do."""

    def advance(*arguments):
        raise jax.errors.JaxRuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "advance", advance)
        patched.setattr(loop.device_memory, "room_for_steps", lambda *_: room)
        with pytest.raises((InputError, jax.errors.JaxRuntimeError)) as caught:
            Run.of(config_of("hlr", batch_size=BATCH)).fit()
    return caught.value


def test_the_largest_batch_that_fits_is_named(monkeypatch):
    sizes = [16, 32, 48]
    bytes_of = dict(zip(sizes, map(held, sizes), strict=True))
    assert bytes_of[16] < bytes_of[32] < bytes_of[48]
    for size in sizes:
        text = str(fault_of(monkeypatch, bytes_of[size]))
        assert text.startswith(
            f"config.training.batch_size={BATCH}: a step does not fit into the memory of a device; "
            "use at most "
        )
        assert text.endswith(" or a shorter config.sampling.history_length")
        assert "\n" not in text
        # Each of eight devices has an eighth of it, rounded up.
        assert abs(int(text.split("use at most ")[1].split()[0]) - size) <= 8


def test_without_a_number_remedies_are_named(monkeypatch):
    for room in (None, 0):
        text = str(fault_of(monkeypatch, room))
        assert "use a smaller batch, a shorter config.sampling.history_length or more dev" in text


def test_other_faults_of_a_device_are_not_explained(monkeypatch):
    found = fault_of(monkeypatch, None, "INTERNAL: something else")
    assert not isinstance(found, InputError)


def test_a_compiler_that_refuses_smaller_batches_too_leaves_the_remedies(monkeypatch):
    def refuse(*arguments):
        raise jax.errors.JaxRuntimeError(EXHAUSTED)

    monkeypatch.setattr(loop.device_memory, "_held", refuse)
    text = str(fault_of(monkeypatch, 2**30))
    assert "use a smaller batch, a shorter config.sampling.history_length or more dev" in text


def test_room_for_steps_is_what_copies_for_checkpoints_leave(monkeypatch):
    run = Run.of(config_of("cml"))
    state, placement = run.state(run.placement.num_devices), run.placement
    arrays = sum(x.nbytes for x in jax.tree.leaves(state))
    params = sum(x.nbytes for x in jax.tree.leaves(state.params))
    for free, room in ((None, None), (10**6, 10**6 - arrays - 2 * params)):
        monkeypatch.setattr(devices, "free_bytes", lambda stats, free=free: free)
        assert loop.device_memory.room_for_steps(state, placement) == room
