"""A real server on the loopback, and clients who send it anything, or nothing."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support import malformed

from hlr_jax.serving import Limits, make_app, make_server, server


@contextlib.contextmanager
def served(app) -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = make_server(app)
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            while not running.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join()


@pytest.fixture
def port(model, monkeypatch) -> Iterator[int]:
    monkeypatch.setattr(server, "SECONDS", 0.3)
    with served(make_app(model, Limits(seconds=0.3))) as port:
        yield port


def health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status


def test_malformed_requests_are_refused_and_the_service_stays_up(model):
    with served(make_app(model)) as port:
        for request in malformed.requests(1000):
            status = malformed.answer(port, request)
            assert request.is_refused_by(status), (status, request.kind, request.sent[:1000])
        assert health(port) == 200


def test_clients_who_say_nothing_are_hung_up_on_and_hold_nobody_up(port):
    head = b"POST /recommend HTTP/1.1\r\nhost: a\r\n"
    with contextlib.ExitStack() as stack:
        silent, slow = (
            [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(50)]
            for _ in range(2)
        )
        for connection in slow:
            connection.sendall(head)
        assert health(port) == 200
        # The end of what is received is the end of the connection.
        assert [connection.recv(1) for connection in silent] == [b""] * 50
        assert [connection.recv(1) for connection in slow] == [b""] * 50
    assert health(port) == 200


def test_a_body_that_does_not_come_is_a_timeout_of_the_client(port):
    length = b"content-length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /recommend HTTP/1.1\r\nhost: a\r\n" + length + b'{"users"')
        found = b""
        while part := connection.recv(4096):
            found += part
    assert found.startswith(b"HTTP/1.1 408")
    assert b"the body did not come within 0.3 seconds" in found


def test_a_connection_serves_request_after_request_while_they_come(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for turn in range(8):
        body = json.dumps({"users": ["u03"], "k": 3 + turn % 2})
        connection.request("POST", "/recommend", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        lists = json.loads(answer.read())["recommendations"]
        assert answer.status == 200
        assert len(lists[0]["items"]) == 3 + turn % 2
        time.sleep(0.1)  # Together longer than a client may say nothing.
    connection.close()
