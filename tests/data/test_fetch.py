"""Downloads are verified, unpacked safely, and complete or not there at all; without a network."""

import email.message
import hashlib
import http.client
import io
import pathlib
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile

import pytest

from hlr_jax.data import fetch, unpacking
from hlr_jax.data.registry import Download

URL = "https://example.org/data.zip"


class Response(io.BytesIO):
    def __init__(self, content, length=None):
        super().__init__(content)
        self.headers = email.message.Message()
        self.headers["Content-Length"] = str(len(content) if length is None else length)


def opener_of(files):
    """Answers addresses from a dictionary."""

    def opener(url):
        if url not in files:
            raise urllib.error.URLError(OSError("no route to host"))
        return Response(files[url])

    return opener


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def written(path, content):
    path.write_bytes(content)
    return path


def names_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Checksums.


@pytest.mark.parametrize(
    "checksum",
    [
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "md5:5d41402abc4b2a76b9719d911017c592",
        "git:b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
    ],
)
def test_verify_accepts_only_the_content(tmp_path, checksum):
    fetch.verify(written(tmp_path / "right", b"hello"), checksum)
    with pytest.raises(fetch.FetchError, match="not the known one"):
        fetch.verify(written(tmp_path / "wrong", b"hello!"), checksum)


# Unpacking.


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_unpack_keeps_folders_and_content(tmp_path, make):
    archive = written(tmp_path / "archive", make({"a/b.txt": b"one", "c.txt": b"two"}))
    folder = tmp_path / "out"
    folder.mkdir()
    unpacking.unpack(archive, folder)
    assert (folder / "a/b.txt").read_bytes() == b"one"
    assert (folder / "c.txt").read_bytes() == b"two"


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/abs.txt", "C:x", "a\\b"])
def test_unpack_refuses_paths_that_lead_out(tmp_path, make, name):
    archive = written(tmp_path / "archive", make({name: b"bad"}))
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(fetch.FetchError, match="leads out"):
        unpacking.unpack(archive, folder)
    assert names_below(tmp_path) == ["archive", "out"]


def test_unpack_refuses_links_in_a_zip(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(fetch.FetchError, match="not a plain file"):
        unpacking.unpack(written(tmp_path / "archive", buffer.getvalue()), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_unpack_refuses_links_and_devices_in_a_tar(tmp_path, kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("odd")
        info.type = kind
        info.linkname = "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(fetch.FetchError, match="not a plain file"):
        unpacking.unpack(written(tmp_path / "archive", buffer.getvalue()), tmp_path)


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_unpack_stops_a_bomb(tmp_path, make):
    archive = written(tmp_path / "archive", make({"a": bytes(3000), "b": bytes(3000)}))
    unpacking.unpack(archive, pathlib.Path(_made(tmp_path / "enough")), limit=6000)
    with pytest.raises(fetch.FetchError, match="too much"):
        unpacking.unpack(archive, _made(tmp_path / "short"), limit=5999)


def _made(folder):
    folder.mkdir()
    return folder


def test_unpack_refuses_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_MEMBERS", 2)
    members = {"a": b"", "b": b"", "c": b""}
    for number, make in enumerate((zip_of, tar_of)):
        archive = written(tmp_path / f"archive{number}", make(members))
        with pytest.raises(fetch.FetchError, match="more than 2 files"):
            unpacking.unpack(archive, _made(tmp_path / f"out{number}"))


def test_unpack_refuses_a_name_given_twice(tmp_path):
    archive = written(tmp_path / "archive", tar_of({"a": b"1", "./a": b"2"}))
    with pytest.raises(fetch.FetchError, match="holds '\\./a' twice"):
        unpacking.unpack(archive, _made(tmp_path / "out"))


def test_unpack_refuses_a_file_that_is_a_folder_too(tmp_path):
    for number, make in enumerate((zip_of, tar_of)):
        archive = written(tmp_path / f"archive{number}", make({"a": b"1", "a/b": b"2"}))
        with pytest.raises(fetch.FetchError, match="holds 'a/b' below a file"):
            unpacking.unpack(archive, _made(tmp_path / f"out{number}"))


def test_unpack_refuses_a_name_with_a_nul(tmp_path):
    """As PAX headers can have; a zip's name ends there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("\u00e9" * 60 + "zero.txt"))
    damaged = buffer.getvalue().replace(b"zero.txt", b"zer\0.txt", 1)
    with pytest.raises(fetch.FetchError, match=r"leads out"):
        unpacking.unpack(written(tmp_path / "archive", damaged), _made(tmp_path / "out"))


def test_the_ratio_of_an_archive_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "SMALL_BYTES", 1000)
    bomb, table = zip_of({"a": bytes(300_000)}), zip_of({"a": bytes(range(256)) * 40})
    for name, content in (("bomb", bomb), ("table", table)):
        url = f"https://example.org/{name}.zip"
        wanted = [Download(url, sha256(content))]
        if name == "table":
            fetch.fetch(wanted, tmp_path / name, False, opener_of({url: content}))
            continue
        with pytest.raises(fetch.FetchError, match="unpacks to too much"):
            fetch.fetch(wanted, tmp_path / name, False, opener_of({url: content}))
    assert not (tmp_path / "bomb").exists()


def test_unpack_names_what_is_no_archive(tmp_path):
    with pytest.raises(fetch.FetchError, match="neither a zip nor a tar"):
        unpacking.unpack(written(tmp_path / "page", b"<html>not found</html>"), tmp_path)


def test_unpack_reports_damage(tmp_path):
    whole = zip_of({"a": bytes(range(256)) * 50})
    damaged = whole[:40] + bytes(20) + whole[60:]
    with pytest.raises(fetch.FetchError, match="cannot be unpacked"):
        unpacking.unpack(written(tmp_path / "archive", damaged), _made(tmp_path / "out"))


# From download to folder.


def test_fetch_takes_the_content_of_an_archives_only_folder(tmp_path):
    content = zip_of({"ml/u.data": b"1\t2\n", "ml/sub/x": b"x"})
    folder = tmp_path / "cache" / "ml-100k"
    fetch.fetch([Download(URL, sha256(content))], folder, False, opener_of({URL: content}))
    assert names_below(folder) == ["sub", "sub/x", "u.data"]
    assert [path.name for path in folder.parent.iterdir()] == ["ml-100k"]


def test_fetch_completes_a_folder_that_is_there(tmp_path):
    folder = _made(tmp_path / "set")
    written(folder / "notes", b"mine")
    written(folder / "train.txt", b"cut sho")
    url = "https://example.org/train.txt"
    fetch.fetch([Download(url, sha256(b"whole"))], folder, False, opener_of({url: b"whole"}))
    assert (folder / "train.txt").read_bytes() == b"whole"
    assert (folder / "notes").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "second",
    [
        Download("https://example.org/gone", sha256(b"2")),
        Download("https://example.org/2", sha256(b"another")),
        Download("https://example.org/2.zip", sha256(b"2")),
    ],
    ids=["unreachable", "wrong content", "no archive"],
)
def test_fetch_leaves_nothing_behind_when_a_part_fails(tmp_path, second):
    files = {f"https://example.org/{name}": name[:1].encode() for name in ("1", "2", "2.zip")}
    first = Download("https://example.org/1", sha256(b"1"))
    with pytest.raises(fetch.FetchError):
        fetch.fetch([first, second], tmp_path / "set", False, opener_of(files))
    assert names_below(tmp_path) == []


def test_fetch_says_why(tmp_path):
    with pytest.raises(fetch.FetchError, match="no route to host"):
        fetch.fetch([Download(URL, sha256(b""))], tmp_path / "set", False, opener_of({}))


def test_a_connection_that_ends_early_is_an_error(tmp_path):
    def opener(url):
        return Response(b"half", length=8)

    with pytest.raises(fetch.FetchError, match="ended after 4 of 8"):
        fetch.download_file(URL, tmp_path / "file", False, opener)


def test_a_download_has_a_limit(tmp_path):
    opener = opener_of({URL: bytes(100)})
    with pytest.raises(fetch.FetchError, match="larger than 99"):
        fetch.download_file(URL, tmp_path / "file", False, opener, limit=99)


def test_progress_goes_to_standard_error(tmp_path, capsys):
    fetch.download_file(URL, tmp_path / "file", True, opener_of({URL: bytes(100)}))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "data.zip: 100%, 00:00 passed, from example.org\n"


@pytest.mark.parametrize("url", ["http://example.org/a", "file:///etc/passwd", "ftp://x/y"])
def test_only_https_is_opened(url):
    with pytest.raises(fetch.FetchError, match="not an https address"):
        fetch.open_https(url)


def test_redirects_stay_on_https():
    request = urllib.request.Request(URL)
    handler = fetch._HttpsOnly()
    headers = http.client.HTTPMessage()
    body = io.BytesIO()
    with pytest.raises(fetch.FetchError, match="not an https address"):
        handler.redirect_request(request, body, 302, "", headers, "http://example.org/x")
    kept = handler.redirect_request(request, body, 302, "", headers, "https://example.org/x")
    assert kept.full_url == "https://example.org/x"
