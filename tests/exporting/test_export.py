"""Exported files hold the model: other programs rank as it does."""

import json

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from jax import export as jax_export
from support.untrained import untrained

from hlr_jax import InputError
from hlr_jax.exporting import export, index, program
from hlr_jax.sampling.histories import user_histories


@pytest.fixture(scope="module", params=["cml", "hlr", "items_only", "dpcml", "transcf"])
def exported(request, tmp_path_factory):
    model = untrained(request.param)
    return model, export(model, tmp_path_factory.mktemp("exported") / "model", k=7)


def test_the_function_ranks_as_the_model_does_for_any_number_of_users(exported):
    model, found = exported
    blob = (found.folder / "ranking.stablehlo").read_bytes()
    ranking = jax_export.deserialize(bytearray(blob))
    assert set(ranking.platforms) == {"cpu", "cuda", "tpu"}
    for users in ([3], [5, 2, 9]):
        rows = jnp.asarray(users, jnp.int32)
        drawn = user_histories(model.tables.draw, model.tables.history, rows)
        seen = np.full((len(rows), 12), 30, np.int32)
        for place, user in enumerate(users):
            items = model.everything.of(user)
            seen[place, : len(items)] = items
        items, scores = ranking.call(rows, drawn.items, drawn.mask, seen)
        for place, user in enumerate(users):
            expected = model.recommend([user], 7)
            assert np.asarray(items)[place].tolist() == expected["item"].to_list()
            np.testing.assert_allclose(scores[place], expected["score"], rtol=1e-4, atol=1e-5)


def test_tables_and_ids_are_those_of_the_model(exported):
    model, found = exported
    vectors = safetensors.numpy.load_file(found.folder / "vectors.safetensors")
    np.testing.assert_array_equal(vectors["users"], model.user_vectors())
    np.testing.assert_array_equal(vectors["items"], model.item_vectors())
    users = pl.read_parquet(found.folder / "users.parquet")
    assert users["user"].to_list() == model.dataset.user_ids.tolist()
    seen = pl.read_parquet(found.folder / "seen.parquet")
    assert seen.height == len(model.everything)
    if found.about["vectors_are_exact"]:
        distances = ((vectors["users"][3] - vectors["items"]) ** 2).sum(1)
        unseen = np.setdiff1d(np.arange(30), model.everything.of(3))
        best = unseen[np.argsort(distances[unseen], kind="stable")[:5]]
        assert model.recommend([3], 5)["item"].to_list() == best.tolist()


def test_the_index_finds_what_is_near_and_says_how_much(exported):
    hnswlib = pytest.importorskip("hnswlib")
    model, found = exported
    index = hnswlib.Index(space="l2", dim=model.model.dim)
    index.load_index(str(found.folder / "items.hnsw"))
    labels, distances = index.knn_query(model.user_vectors([3]), 5)
    exact = ((model.user_vectors([3]) - model.item_vectors()) ** 2).sum(1)
    assert labels[0].tolist() == np.argsort(exact, kind="stable")[:5].tolist()
    np.testing.assert_allclose(distances[0], np.sort(exact)[:5], rtol=1e-4, atol=1e-6)
    # All 30 items are candidates here.
    assert found.about["index"]["recall_of_the_best_10"] == 1.0


def test_the_folder_says_what_it_holds(exported):
    _, found = exported
    names = {path.name for path in found.folder.iterdir()}
    assert names == set(found.files)
    text = (found.folder / "README.txt").read_text()
    assert all(name in text for name in names - {"README.txt"})
    assert json.loads((found.folder / "export.json").read_text()) == json.loads(
        json.dumps(found.about)
    )


def test_nothing_is_written_over_and_nothing_half(tmp_path, monkeypatch):
    model = untrained("cml")
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    for name in ("file", "full"):
        with pytest.raises(InputError, match="there is something already"):
            export(model, tmp_path / name)
    monkeypatch.setattr(program, "serialized", _full)
    with pytest.raises(InputError, match=r"cannot be written .No space left"):
        export(model, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    with pytest.raises(InputError, match="k=0"):
        export(model, tmp_path / "new", 0)


def _full(tables, k):
    raise OSError(28, "No space left on device")


def test_without_hnswlib_the_rest_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(index.importlib.util, "find_spec", lambda name: None)
    found = export(untrained("cml"), tmp_path / "model", k=3)
    assert "hnswlib is not installed" in found.about["index"]
    assert "items.hnsw" not in found.files
