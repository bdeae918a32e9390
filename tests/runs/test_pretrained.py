"""Tables that a run starts from, and keeps where they are frozen."""

import dataclasses

import numpy as np
import pytest
from support.small_runs import ITEMS, USERS, Run, config_of, differ, planted, train

from hlr_jax.data import loading
from hlr_jax.errors import InputError
from hlr_jax.runs import experiment
from hlr_jax.training.state import Keys, Sizes, init_params

NPY_HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"


@pytest.fixture
def tables(tmp_path):
    """Tables on disk; some rows are outside the unit ball."""
    generator = np.random.default_rng(3)
    arrays = {
        "user": generator.normal(size=(USERS, 6)).astype(np.float32),
        "item": generator.normal(size=(ITEMS, 6)).astype(np.float32),
    }
    np.savez(tmp_path / "tables.npz", **arrays)
    return tmp_path / "tables.npz", arrays


def test_a_frozen_pretrained_table_stays_as_it_is(tables):
    path, arrays = tables
    params = train(config_of("cml", pretrained=str(path), freeze_item=True))
    np.testing.assert_array_equal(params["item"], arrays["item"])
    assert (params["user"] != arrays["user"]).any(axis=1).all()
    both = train(config_of("lrml", pretrained=str(path), freeze_item=True, freeze_user=True))
    np.testing.assert_array_equal(both["item"], arrays["item"])
    np.testing.assert_array_equal(both["user"], arrays["user"])
    # Then only the relation learns.
    started = Run.of(config_of("lrml")).params()
    assert differ(both["relation"], started["relation"])


def test_a_pretrained_table_is_where_training_starts(tables):
    path, arrays = tables
    params = train(config_of(pretrained=str(path), learning_rate=1e-30, epochs=1))
    for name, table in arrays.items():
        norms = np.linalg.norm(table, axis=1, keepdims=True)
        np.testing.assert_allclose(params[name], table / np.maximum(norms, 1), rtol=1e-5)


def test_one_pretrained_table_will_do(tables, tmp_path):
    _, arrays = tables
    np.savez(tmp_path / "items.npz", item=arrays["item"])
    frozen = {"freeze_item": True, "freeze_user": True}
    config = config_of("lrml", pretrained=str(tmp_path / "items.npz"), **frozen)
    params = train(config)
    np.testing.assert_array_equal(params["item"], arrays["item"])
    run = Run.of(config)
    np.testing.assert_array_equal(params["user"], run.params()["user"])
    # What is frozen is not brought back into the ball either.
    started = init_params(Keys.of(config.seed).init, run.model, Sizes(USERS, ITEMS))
    np.testing.assert_allclose(params["user"], started["user"], rtol=1e-6)


def test_pretrained_tables_of_another_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: planted())  # what a run's folder names
    first = train(config_of("cml", epochs=2), tmp_path / "first")
    frozen = {"freeze_user": True, "freeze_item": True}
    second = config_of("lrml", pretrained=str(tmp_path / "first"), **frozen)
    after = train(second, tmp_path / "second")
    for name in ("user", "item"):
        np.testing.assert_array_equal(after[name], first[name])

    others = dataclasses.replace(planted(), user_ids=np.arange(USERS) + 77)
    with pytest.raises(InputError, match=r"config\.training\.pretrained=.* other user_ids"):
        experiment.train(second, None, others, show_progress=False)


@pytest.mark.parametrize(("first", "second"), [("cml", "items_only"), ("items_only", "cml")])
def test_where_users_have_no_rows_items_alone_are_read(first, second, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: planted())
    before = train(config_of(first, epochs=2), tmp_path / "first")
    config = config_of(
        second, pretrained=str(tmp_path / "first"), freeze_item=True, freeze_user=True
    )
    after = train(config, tmp_path / "second")
    np.testing.assert_array_equal(after["item"], before["item"])
    assert after["user"].shape == (USERS, 0 if second == "items_only" else 6)


def test_a_table_of_users_alone_is_nothing_to_users_without_rows(tables, tmp_path):
    _, arrays = tables
    np.savez(tmp_path / "users.npz", user=arrays["user"])
    with pytest.raises(InputError, match="holds neither an array 'user' nor 'item' of this model"):
        train(config_of("items_only", pretrained=str(tmp_path / "users.npz")))


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"user": np.zeros((USERS, 5))}, r"user has shape \(24, 5\), expected \(24, 6\)"),
        ({"item": np.zeros((ITEMS + 1, 6))}, r"item has shape \(31, 6\), expected \(30, 6\)"),
        ({"users": np.zeros((USERS, 6))}, "neither an array 'user' nor 'item'"),
        ({"user": np.array(["words"] * USERS, object)}, "not a run's folder or an .npz file"),
    ],
)
def test_pretrained_tables_that_do_not_fit(tmp_path, arrays, fault):
    np.savez(tmp_path / "tables.npz", **arrays)
    with pytest.raises(InputError, match=fault) as caught:
        train(config_of(pretrained=str(tmp_path / "tables.npz")), tmp_path / "run")
    assert "config.training.pretrained" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"not an archive", id="text"),
        pytest.param(b"PK\x03\x04 cut off", id="cut off"),
        pytest.param(b"\x93NUMPY\x01\x00v\x00" + NPY_HEADER + bytes(4), id="a bare array"),
    ],
)
def test_pretrained_files_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "tables.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.training\.pretrained") as caught:
        train(config_of(pretrained=str(tmp_path / "tables.npz")))
    assert "\n" not in str(caught.value)
