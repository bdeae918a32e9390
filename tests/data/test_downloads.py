"""Downloads from a server on this machine that cuts, trickles, redirects and sends other things."""

import contextlib
import hashlib
import http.server
import shutil
import ssl
import subprocess
import threading
import time

import pytest

from hlr_jax.data import fetch, unpacking
from hlr_jax.data.registry import Download

CONTENT = bytes(range(256)) * 400


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by what the test has put into `server.answers`, one function per request."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        answer = self.server.answers.pop(0) if self.server.answers else whole
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            answer(self)
        self.close_connection = True

    def log_message(self, *_):
        pass

    def head(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """Clients that hang up are what is tested."""


def whole(handler):
    handler.head(Content_Length=len(CONTENT))
    handler.wfile.write(CONTENT)


def cut_after(count):
    def answer(handler):
        handler.head(Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT[:count])

    return answer


def part(handler):
    """The rest, as asked for."""
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    rest = CONTENT[start:]
    about = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    handler.head(206, Content_Length=len(rest), Content_Range=about)
    handler.wfile.write(rest)


def part_cut_after(count):
    def answer(handler):
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        about = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        handler.head(206, Content_Length=len(CONTENT) - start, Content_Range=about)
        handler.wfile.write(CONTENT[start : start + count])

    return answer


def saying(status, body=b"", **headers):
    def answer(handler):
        handler.head(status, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return answer


def to(address):
    return saying(302, Location=address)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes a certificate, is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 "
        "-keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def server(certificate, monkeypatch):
    """An https server that this process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 5.0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.answers, server.asked = [], []
    server.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(server, tmp_path):
    """Fetch a file into a folder; returns its content."""

    def fetched(*answers, content=CONTENT, path="/table.tsv"):
        server.answers[:] = answers
        checksum = "sha256:" + hashlib.sha256(content).hexdigest()
        fetch.fetch([Download(server.url + path, checksum)], tmp_path / "set", progress=False)
        return (tmp_path / "set" / "table.tsv").read_bytes()

    return fetched


def left(folder):
    return [path for path in folder.iterdir() if path.name != "set"]


def test_a_good_server(server, get, tmp_path):
    assert get(whole) == CONTENT
    assert server.asked == [("/table.tsv", "")]
    assert not left(tmp_path)


def test_a_connection_that_is_cut_goes_on_where_it_was(server, get, tmp_path):
    assert get(cut_after(1000), part_cut_after(500), part) == CONTENT
    assert [asked for _, asked in server.asked] == ["", "bytes=1000-", "bytes=1500-"]
    assert not left(tmp_path)


def test_what_has_arrived_is_kept_for_the_next_command(server, get, tmp_path):
    with pytest.raises(fetch.FetchError, match=r"ended after 3000 of 102400 bytes"):
        get(cut_after(1000), part_cut_after(1000), part_cut_after(1000))
    (kept,) = left(tmp_path)
    assert kept.name.startswith(".table.tsv-")
    assert kept.name.endswith(".part")
    assert kept.read_bytes() == CONTENT[:3000]
    server.asked.clear()
    assert get(part) == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=3000-"]
    assert not left(tmp_path)


def test_another_checksum_does_not_go_on_from_it(server, get, tmp_path):
    with pytest.raises(fetch.FetchError, match="ended after"):
        get(cut_after(1000), part_cut_after(0))
    server.asked.clear()
    other = b"another version"
    assert get(saying(200, other), content=other) == other
    assert [asked for _, asked in server.asked] == [""]


def test_a_server_that_sends_no_parts(server, get, tmp_path):
    assert get(cut_after(1000), whole) == CONTENT
    assert not left(tmp_path)


def test_a_server_that_sends_another_part(get, tmp_path):
    about = {"Content_Range": "bytes 5-9/102400"}
    with pytest.raises(fetch.FetchError, match="not the known one"):
        get(cut_after(1000), *[saying(206, CONTENT[5:10], **about)] * 3)
    assert not left(tmp_path)


def test_a_part_of_an_older_version_is_fetched_again(server, get, tmp_path):
    def old(handler):
        handler.head(Content_Length=len(CONTENT))
        handler.wfile.write(bytes(1000))

    assert get(old, part, whole) == CONTENT
    assert [asked for _, asked in server.asked] == ["", "bytes=1000-", ""]


def test_a_server_with_fewer_bytes_than_are_here(get):
    assert get(cut_after(1000), saying(416), whole) == CONTENT


@pytest.mark.parametrize("body", [CONTENT[:-1], CONTENT + b"x", b"", b"<html>sorry</html>"])
def test_a_whole_file_that_is_another(get, tmp_path, body):
    """Shorter, longer, empty, a page; each as long as it says."""
    with pytest.raises(fetch.FetchError, match="not the known one: its sha256 checksum is"):
        get(saying(200, body))
    assert not left(tmp_path)
    assert not (tmp_path / "set").exists()


def test_more_bytes_than_announced_do_not_count(get):
    def longer(handler):
        handler.head(Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT + b"more")

    assert get(longer) == CONTENT


@pytest.mark.parametrize(("status", "reason"), [(404, "404"), (403, "403"), (500, "500")])
def test_a_status_is_named(get, tmp_path, status, reason):
    with pytest.raises(fetch.FetchError, match=f"HTTP Error {reason}"):
        get(saying(status, b"no"))
    assert not left(tmp_path)


def test_redirects(server, get):
    assert get(to("/moved"), to(f"https://127.0.0.1:{server.server_port}/host"), whole) == CONTENT
    assert [path for path, _ in server.asked] == ["/table.tsv", "/moved", "/host"]


@pytest.mark.parametrize("address", ["http://localhost/x", "file:///etc/passwd", "ftp://x/y"])
def test_redirects_that_leave_https(get, address):
    with pytest.raises(fetch.FetchError, match=r"is not an https address|is not allowed"):
        get(to(address))


def test_redirects_in_a_circle(get):
    with pytest.raises(fetch.FetchError, match="infinite loop") as caught:
        get(*[to("/table.tsv")] * 20)
    assert "\n" not in str(caught.value)


def test_an_unknown_certificate(server, get, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(fetch.FetchError, match="certificate verify failed"):
        get(whole)


def test_a_trickle_is_given_up(get, monkeypatch, tmp_path):
    """Each byte comes before the socket gives up."""
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(fetch, "TRIES", 1)

    def trickle(handler):
        handler.head(Content_Length=len(CONTENT))
        for byte in CONTENT[:200]:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.01)

    with pytest.raises(fetch.FetchError, match=r"only \d+ bytes arrived in"):
        get(trickle)
    (kept,) = left(tmp_path)
    assert CONTENT.startswith(kept.read_bytes())


def test_silence_is_given_up(get, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.1)

    def silent(handler):
        handler.head(Content_Length=len(CONTENT))
        time.sleep(0.5)

    with pytest.raises(fetch.FetchError, match="timed out"):
        get(silent)


def test_more_than_is_accepted_is_not_kept(server, get, monkeypatch, tmp_path):
    original = fetch.download_file
    monkeypatch.setattr(fetch, "download_file", lambda *args: original(*args, limit=5000))
    with pytest.raises(fetch.FetchError, match="is larger than 5000 bytes"):
        get(whole)
    assert not left(tmp_path)


def test_two_processes_do_not_write_to_one_file(server, get, tmp_path):
    with pytest.raises(fetch.FetchError, match="ended after"):
        get(cut_after(1000), part_cut_after(0))
    (kept,) = left(tmp_path)
    with open(kept, "ab") as other:
        assert fetch._locks(other, kept)
        assert get(whole) == CONTENT
        assert kept.read_bytes() == CONTENT[:1000]


def test_interrupting_keeps_what_has_arrived(get, monkeypatch, tmp_path):
    original = unpacking.copy

    def interrupted(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(unpacking, "copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(cut_after(1000))
    (kept,) = left(tmp_path)
    assert kept.read_bytes() == CONTENT[:1000]
    monkeypatch.setattr(unpacking, "copy", original)
    assert get(part) == CONTENT
