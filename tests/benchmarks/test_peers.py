"""The programs of PyTorch that ours are compared with."""

import numpy as np
import pytest

from benchmarks import shapes

torch = pytest.importorskip("torch")

from benchmarks.peers import forms, plain_pytorch, torch_sampling  # noqa: E402 - it may be missing.


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    # Several wait for each other, long where other programs use the cores.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def interactions():
    return shapes.made_up(40, 30, 400)


@pytest.fixture(scope="module")
def rows(interactions):
    return torch_sampling.Rows(interactions)


@pytest.mark.parametrize("count", [3, 12, 40])
def test_both_ways_of_floyds_algorithm_choose_the_same(count):
    length = 12
    first = torch.tensor([[max(count - length, 0)]]).repeat(500, 1)
    draws = (torch.rand(500, length) * (first + torch.arange(length) + 1)).long()
    by_steps = torch_sampling.floyd_by_steps(draws, first, max(count, length))
    at_once = torch_sampling.floyd_at_once(draws, first, max(count, length))
    size = min(count, length)
    assert torch.equal(by_steps[:, :size], at_once[:, :size])
    assert all(len(set(chosen)) == size for chosen in at_once[:, :size].tolist())


def test_subsets_are_equally_likely():
    first, draws = torch.full((60_000, 1), 2), (torch.rand(60_000, 2) * torch.tensor([3, 4])).long()
    chosen = torch_sampling.floyd_at_once(draws, first, 4).sort(1).values
    _, counts = np.unique(chosen.numpy(), axis=0, return_counts=True)
    np.testing.assert_allclose(counts / len(draws), 1 / 6, atol=0.01)


def test_draws_are_of_the_user_without_the_target(interactions, rows):
    chosen = torch.arange(len(interactions))
    batch = torch_sampling.draw_batch(rows, chosen, negatives=3, history_length=8)
    for user, items, history, mask in zip(*(x.tolist() for x in batch), strict=True):
        own, positive = set(interactions.of(user).tolist()), items[0]
        assert positive in own
        assert not own & set(items[1:])
        drawn = [item for item, is_valid in zip(history, mask, strict=True) if is_valid]
        assert len(set(drawn)) == len(drawn) == min(len(own) - 1, 8)
        assert set(drawn) <= own - {positive}


@pytest.mark.parametrize("model", shapes.MODELS)
def test_steps_decrease_the_loss(interactions, model):
    shape = shapes.Shape(model, dim=8, slots=3, history_length=5, batch_size=50)
    rng = np.random.default_rng(0)
    sizes = {"user": (40, 8), "item": (30, 8)}
    if shape.has_memory:
        sizes |= {"key": (8, 3), "memory": (3, 8)}
    params = {name: rng.normal(0, 0.3, size).astype(np.float32) for name, size in sizes.items()}
    setting = plain_pytorch.Setting("cpu", shape, interactions, params, 0.5, 1e-2)
    trainer = plain_pytorch.plain_trainer(setting, forms.EAGER)
    batch = (
        np.arange(10),
        rng.integers(30, size=(10, 2)),
        rng.integers(30, size=(10, 5)) if shape.has_history else None,
        np.ones((10, 5), bool) if shape.has_history else None,
    )
    assert np.isfinite(trainer.loss_of(batch))
    chosen = torch.arange(len(interactions))
    task = trainer._task
    torch.manual_seed(0)
    before = task(task.draw(chosen)).item()
    trainer.run(20)
    torch.manual_seed(0)
    assert task(task.draw(chosen)).item() < before
    assert task.model.user.norm(dim=1).max() < 1 + 1e-5
