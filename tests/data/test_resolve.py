"""Which files a configuration stands for, and what errors say if they are missing."""

import dataclasses
import hashlib
import io
import zipfile

import pytest
from data_files import fault, ratings, write, write_split

from hlr_jax.cache import cache_folder
from hlr_jax.config import DataConfig
from hlr_jax.data import fetch, load, locate, registry
from hlr_jax.data.resolve import resolve
from hlr_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("folders")


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("HLR_JAX_DATA")
    assert locate.data_folder() == cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HLR_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hlr_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "hlr_jax"


def test_a_data_set_is_downloaded_into_the_cache(folders, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ml-100k/u.data", ratings())
    content = buffer.getvalue()
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    spec = registry.specs()["ml_100k"]
    download = dataclasses.replace(spec.downloads[0], checksum=checksum)
    changed = dataclasses.replace(spec, downloads=(download,))
    monkeypatch.setitem(registry.specs(), "ml_100k", changed)
    asked = []

    def opener(url):
        asked.append(url)
        response = io.BytesIO(content)
        response.headers = {}
        return response

    monkeypatch.setattr(fetch, "open_https", opener)
    for _ in range(2):
        load(DataConfig(name="ml_100k", core=2), progress=False)
    assert asked == [download.url]
    assert (folders[1] / "ml-100k" / "u.data").is_file()
    assert not any(folders[0].iterdir())


@pytest.mark.parametrize("name", list(registry.specs()))
def test_the_error_without_network_says_which_files_to_put_where(folders, name):
    spec = registry.specs()[name]
    message = fault(resolve, DataConfig(name=name), False)
    assert "config.data.name" in message
    assert str(folders[0] / spec.folders[0]) in message
    assert "https://" in message or "http://" in message
    for file in (*spec.files, *(download.file for download in spec.downloads)):
        assert file in message
    assert f"HLR_JAX_DATA to a folder that has them in {spec.folders[0]}" in message


def test_a_file_without_ratings_will_do_if_no_rating_is_asked_for(folders):
    lists = [f"{user} " + " ".join(str(1 + (user + k) % 9) for k in range(6)) for user in range(9)]
    write(folders[0] / "ml-1m" / "sequences.time-order.txt", "\n".join(lists) + "\n")
    with pytest.raises(InputError, match=r"min_rating=0 .*sequences\.time-order"):
        resolve(DataConfig(name="ml_1m"), progress=False)
    config = DataConfig(name="ml_1m", min_rating=0.0, core=2, split="leave_one_out")
    dataset = load(config)
    # The last item of each list is for testing, and the one before for validation.
    for user in range(9):
        row = dataset.user_index(user)
        assert dataset.item_ids[dataset.test.of(row)].tolist() == [1 + (user + 5) % 9]
        assert dataset.item_ids[dataset.valid.of(row)].tolist() == [1 + (user + 4) % 9]


def test_predefined_not_found_lists_those_that_are(folders):
    write_split(folders[0] / "splits" / "beta")
    write_split(folders[0] / "splits" / "alpha")
    (folders[0] / "splits" / "empty").mkdir()
    with pytest.raises(InputError, match=r"config\.data\.predefined='gamma'.*: alpha, beta$"):
        resolve(DataConfig(predefined="gamma"))
    (folders[0] / "splits").rename(folders[0] / "moved")
    with pytest.raises(InputError, match="none there"):
        resolve(DataConfig(predefined="x"))
