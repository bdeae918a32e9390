"""Requests that no service should answer with anything but a refusal, as bytes on a connection.

  PYTHONPATH=tests python -m support.malformed PORT 10000

sends so many to a service on this machine, and counts the answers by kind and status.
"""

import collections
import contextlib
import json
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

PATHS = ("/recommend", "/fold-in", "/explain")
GOOD: dict[str, dict[str, Any]] = {
    "/recommend": {"users": ["u03"], "k": 3},
    "/fold-in": {"history": [1, 4, 7], "k": 5},
    "/explain": {"user": "u03", "item": 7, "k": 3},
}
# As text of JSON, because Python writes none of some.
WRONG = (
    *("null", "true", "{}", "[[]]", "[null]", "[true]", "[1.5]", '[{"a": 1}]', '"text"', "-1", "0"),
    *("1.5", "1e400", "NaN", "[NaN]", "-Infinity", "9" * 400, "[" + "9" * 5000 + "]", '""', "[]"),
    *('["\\ud800"]', '"\\ud800"', '["\\u0000"]', '["' + "x" * 5000 + '"]', '[""]', "[-1]"),
    *(str(2**63), str(2**64), f"[{2**64}]", "[1, [2]]", "[" + "1," * 20_000 + "1]"),
)
TYPES = ("text/plain", "application/xml", "multipart/form-data", "", "application/json; charset=x")
MAY_BE_GOOD = ("mutated", "wrong type", "content type")
LENGTHS = ("-1", "+5", "0x10", "1e3", "99999999999999999999", "5, 5", "", "\xff", "10000000")


class Request(NamedTuple):
    """What is sent on one connection.

    Attributes:
      kind: of fault.
      sent: bytes.
      ends: whether it is a whole request, so that there must be an answer.
    """

    kind: str
    sent: bytes
    ends: bool = True

    def is_refused_by(self, status: int) -> bool:
        """Whether this is how a service should answer; some faults make another good request."""
        if not self.ends and status == 0:
            return True
        return 400 <= status < 500 or (status == 200 and self.kind in MAY_BE_GOOD)


def http(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close", *headers]
    if not any(line.lower().startswith(("content-length", "transfer")) for line in headers):
        lines.append(f"content-length: {len(body)}")
    if not any(line.lower().startswith("content-type") for line in headers):
        lines.append("content-type: application/json")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def mutated(rng: np.random.Generator) -> Request:
    path = rng.choice(PATHS)
    body = bytearray(json.dumps(GOOD[path]).encode())
    for place in rng.integers(0, len(body), rng.integers(1, 6)):
        body[place] = rng.integers(256)
    return Request("mutated", http("POST", path, bytes(body)))


def cut(rng: np.random.Generator) -> Request:
    path = rng.choice(PATHS)
    body = json.dumps(GOOD[path]).encode()
    return Request("cut", http("POST", path, body[: rng.integers(len(body))]))


def wrong_type(rng: np.random.Generator) -> Request:
    path = str(rng.choice(PATHS))
    field = rng.choice([*GOOD[path], "items", "exclude", "filter_seen", "unknown", "other"])
    texts = {name: json.dumps(value) for name, value in GOOD[path].items()}
    texts[field] = WRONG[rng.integers(len(WRONG))]
    body = "{" + ", ".join(f'"{name}": {text}' for name, text in texts.items()) + "}"
    return Request("wrong type", http("POST", path, body.encode()))


def deep(rng: np.random.Generator) -> Request:
    depth = int(rng.choice([50, 900, 1100, 5000, 100_000]))
    start, end = [("[", "]"), ('{"a":', "}"), ('{"users":[', "]}"), ("[", "")][rng.integers(4)]
    body = (start * depth + "1" + end * depth).encode()
    return Request("deep", http("POST", rng.choice(PATHS), body))


def other_content(rng: np.random.Generator) -> Request:
    path = rng.choice(PATHS)
    body = [json.dumps(GOOD[path]).encode(), b"a=1&b=2", b"<a/>", rng.bytes(50)][rng.integers(4)]
    kind = f"content-type: {rng.choice(TYPES)}"
    encoding = ["x-a: b", "content-encoding: gzip", "accept: nothing/at-all"][rng.integers(3)]
    return Request("content type", http("POST", path, body, kind, encoding))


def length(rng: np.random.Generator) -> Request:
    body = json.dumps(GOOD["/recommend"]).encode()
    lines = [f"content-length: {LENGTHS[rng.integers(len(LENGTHS))]}"]
    if rng.random() < 0.3:
        lines = [["transfer-encoding: chunked", "transfer-encoding: gzip"][rng.integers(2)]]
    if rng.random() < 0.2:
        lines.append(f"content-length: {len(body)}")
    return Request("length", http("POST", "/recommend", body, *lines))


def large(rng: np.random.Generator) -> Request:
    if rng.random() < 0.5:
        body = b'{"users": ["' + b"u" * int(rng.integers(2**20, 2**21)) + b'"]}'
        return Request("large", http("POST", rng.choice(PATHS), body))
    header = "x-large: " + "h" * int(rng.integers(2**16, 2**18))
    return Request("large", http("POST", rng.choice(PATHS), b"{}", header))


def bad_http(rng: np.random.Generator) -> Request:
    good = http("POST", "/recommend", json.dumps(GOOD["/recommend"]).encode())
    head = good.split(b"\r\n", 1)[1]
    whole = [
        rng.bytes(int(rng.integers(1, 200))) + b"\r\n\r\n",
        b"POST /recommend HTTP/x.y\r\n" + head,
        b"POST  /recommend  HTTP/1.1\r\n" + head,
        b"POST /recommend\x00 HTTP/1.1\r\n" + head,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nno colon here\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"\r\n" * 5 + b"no\r\n\r\n",
    ]
    return Request("bad HTTP", whole[rng.integers(len(whole))])


def other_path(rng: np.random.Generator) -> Request:
    method = rng.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW"])
    path = rng.choice([*PATHS, "/similar?item=1", "/health"])
    if rng.random() < 0.5:
        method = "GET"
        queries = "item=%FF%FE", "item=%ZZ", "item=" + "1" * 2000, "k=3", "item=1&k=NaN", ""
        queries += "item=1&k=" + "9" * 300, "item=1&k=3&k=x", "item=1%00", "item=%ED%A0%80"
        path = "/similar?" + str(rng.choice(queries))
        path = str(rng.choice([path, "/../../etc/passwd", "/%2e%2e/x", "/recommend", "//", "/a b"]))
    return Request("path", http(str(method), path))


def unfinished(rng: np.random.Generator) -> Request:
    """The client hangs up in the middle."""
    good = http("POST", "/recommend", json.dumps(GOOD["/recommend"]).encode())
    return Request("unfinished", good[: rng.integers(1, len(good))], ends=False)


KINDS: tuple[Callable[[np.random.Generator], Request], ...] = (
    *(mutated, cut, wrong_type, wrong_type, deep, other_content),
    *(length, bad_http, other_path, unfinished),
)


def requests(number: int, seed: int = 0) -> Iterator[Request]:
    """Make up requests of all kinds in turns; a large one now and then."""
    rng = np.random.default_rng(seed)
    for turn in range(number):
        kind = large if turn % 100 == 99 else KINDS[turn % len(KINDS)]
        yield kind(rng)


def answer(port: int, request: Request) -> int:
    """Send a request, and return the status; 0 for none."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        found = b""
        # It may answer before it has read all, and hang up.
        with contextlib.suppress(OSError):
            connection.sendall(request.sent)
            if not request.ends:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in found and (part := connection.recv(4096)):
                found += part
    parts = found.split(b" ", 2)
    return int(parts[1]) if found.startswith(b"HTTP/1.") and len(parts) > 2 else 0


def counted(port: int, number: int) -> collections.Counter[tuple[str, int]]:
    """Send requests, and count the answers by kind and status."""
    return collections.Counter((x.kind, answer(port, x)) for x in requests(number))


if __name__ == "__main__":
    by_status: collections.Counter[int] = collections.Counter()
    for (kind, status), count in sorted(counted(int(sys.argv[1]), int(sys.argv[2])).items()):
        print(f"{kind:<16}{status:>5}{count:>8}")
        by_status[status] += count
    print(dict(sorted(by_status.items())))
