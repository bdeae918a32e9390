"""A saved model: one file with everything, the same anywhere, and refused in one line if harmed."""

import dataclasses
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from support.untrained import OWN_MODELS, untrained

from hlr_jax import InputError, Recommender, archive
from hlr_jax import config as configs
from hlr_jax.config import ShardingConfig


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with titles and ids of text, and its file."""
    found = untrained("hlr")
    data = found.dataset
    data = dataclasses.replace(
        data,
        user_ids=np.array([f"ü{user:03}" for user in range(data.num_users)]),
        item_titles=np.array(["", *(f"Title {i}" for i in range(1, data.num_items))]),
    )
    found = dataclasses.replace(found, dataset=data)
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    found.save(path)
    return found, path


@pytest.mark.parametrize("name", OWN_MODELS)
def test_every_model_is_the_same_after_saving(name, tmp_path):
    found = untrained(name)
    found.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    users = found.dataset.user_ids.tolist()
    assert loaded.recommend(users, 7).equals(found.recommend(users, 7))
    assert loaded.evaluate("test") == found.evaluate("test")
    assert configs.flat(loaded.config) == configs.flat(found.config)
    assert loaded.dataset.digests == found.dataset.digests
    for mine, other in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(loaded.params), strict=True
    ):
        np.testing.assert_array_equal(mine, other)


def test_a_file_is_small_and_other_programs_read_it(saved):
    found, path = saved
    tables = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(found.params))
    assert path.stat().st_size < tables + 40_000
    tensors = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(tensors["params/item"], found.params["item"])


def test_a_process_elsewhere_loads_it_without_data(saved, tmp_path):
    found, path = saved
    program = (
        "import sys, hlr_jax\n"
        "model = hlr_jax.Recommender.load(sys.argv[1])\n"
        "print(model.recommend(['ü002'], 3)['title'].to_list())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"HLR_JAX_CACHE": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
    )
    assert done.stdout.strip() == str(found.recommend(["ü002"], 3)["title"].to_list())


def test_a_model_of_many_devices_is_loaded_on_one(tmp_path):
    found = untrained("cml")
    sharded = ShardingConfig(tables="sharded", item_shards=2)
    config = dataclasses.replace(found.config, sharding=sharded)
    params = jax.tree.map(np.asarray, found.params)
    spread = Recommender.of(config, found.dataset, found.model, params)
    spread.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert not loaded.placement.layout.user
    assert loaded.recommend([1, 2], 5).equals(found.recommend([1, 2], 5))


# --- files that are refused -----------------------------------------------------------------------


def test_a_file_that_lost_or_changed_a_byte_is_refused(saved, tmp_path):
    content = saved[1].read_bytes()
    rng = np.random.default_rng(0)
    harmed, expected = tmp_path / "harmed", saved[0].recommend(["ü001"], 5).rows()
    for number in range(150):
        if number % 2:
            place = int(rng.integers(len(content)))
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(8))
            if bytes(changed) == content:
                continue
            harmed.write_bytes(changed)
        else:
            harmed.write_bytes(content[: int(rng.integers(len(content)))])
        outcome = recommended_by(harmed)
        # A byte of the header may change nothing that is read, as a space.
        assert outcome == expected or re.match(rf"{harmed}: [^\n]*$", str(outcome))


def recommended_by(path):
    """Recommend with a file; or return the error."""
    try:
        return Recommender.load(path).recommend(["ü001"], 5).rows()
    except InputError as error:
        return error


def rewritten(path, to, **changes):
    """The same file with other values in its header."""
    with safetensors.safe_open(path, framework="numpy") as file:
        header = file.metadata()
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), to, header | changes)
    return to


def test_files_of_others_are_refused_with_a_remedy(saved, tmp_path):
    path = saved[1]
    description, arrays = archive.read(path, "recommender")
    for name, change, message in (
        ("module", {"imports": ["my_relation"]}, "my_relation, which is not imported; import it"),
        ("fields", {"surface": "ball"}, r"config\.surface"),
    ):
        changed = description | {"config": description["config"] | change}
        archive.write(tmp_path / name, changed, arrays)
        with pytest.raises(InputError, match=message):
            Recommender.load(tmp_path / name)
    cases = {
        "newer": ({"version": "2"}, "saved by a newer hlr_jax .version 2.*update hlr_jax"),
        "other": ({"format": "other"}, "was not saved by hlr_jax"),
        "kind": (
            {"description": json.dumps({"kind": "baseline"})},
            "a baseline, not a recommender",
        ),
        "text": ({"description": "{"}, "is damaged"),
        "description": ({"description": json.dumps({"kind": "recommender"})}, "is damaged"),
    }
    for name, (changes, message) in cases.items():
        with pytest.raises(InputError, match=message):
            Recommender.load(rewritten(path, tmp_path / name, **changes))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="damaged, or is no saved model"):
        Recommender.load(tmp_path / "text")
    with pytest.raises(InputError, match="not found; give a file that was saved, or the folder"):
        Recommender.load(tmp_path / "nothing")


def test_a_file_that_cannot_be_written_leaves_nothing(saved, tmp_path):
    with pytest.raises(InputError, match=r"no/model: cannot be written \(No such file[\w ]*\)$"):
        saved[0].save(tmp_path / "no" / "model")
    assert not list(tmp_path.iterdir())


def test_arrays_of_every_kind_come_back(tmp_path):
    arrays = {
        "none": np.zeros((0, 4), np.float32),
        "scalar": np.array(3.5),
        "word": np.array("wörd"),
        "words": np.array([["a", ""], ["\n", "日本"]]),
        "no words": np.zeros(0, np.str_),
        "turned": np.arange(6).reshape(2, 3).T,
        "truth": np.array([True, False]),
    }
    archive.write(tmp_path / "file", {"kind": "x", "n": 1}, arrays)
    description, found = archive.read(tmp_path / "file", "x")
    assert description == {"kind": "x", "n": 1}
    assert archive.kind_of(tmp_path / "file") == "x"
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape
