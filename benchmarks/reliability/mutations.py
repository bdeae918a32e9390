"""Damage bytes, as disks, networks, editors, spreadsheets and people do, and as nobody does."""

import re
from collections.abc import Callable

import numpy as np

TOKENS = (
    *(b"", b" ", b"\t", b",", b";", b"::", b"|", b'"', b'""', b"'", b"\\", b"\0", b"\r", b"\n"),
    *(b"\r\n\r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"),
    *(b"NaN", b"-inf", b"Infinity", b"1e999", b"-0", b"007", b"0x1F", b"1_000", b"1,5", b"1.0"),
    *(b"-1", b"9223372036854775808", b"-9223372036854775809", b"4294967296", b"9" * 400),
    *(b"null", b"true", b"None", b"[]", b"{}", b"[[", b"{" * 200, b"[" * 2000, b']"', b'{"a":'),
    *(b"2024-02-30", b"2010-10-19T23:55:27Z", b"0001-01-01", b"99999-12-31", b"25:61"),
    *(b"../../x", b"/etc/passwd", b"__import__('os')", b"%s%n", b"$(touch x)", b"${jndi:x}"),
    *("\u202e\u0301\U0001f600".encode(), b"\x1f\x8b\x08", b"PAR1", b"PK\x03\x04", b"a" * 5000),
)

Mutation = Callable[[np.random.Generator, bytes], bytes]


def flip(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 5)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwrite(rng: np.random.Generator, content: bytes) -> bytes:
    place = int(rng.integers(len(content)))
    new = rng.bytes(int(rng.integers(1, 9)))
    return content[:place] + new + content[place + len(new) :]


def truncate(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: int(rng.integers(len(content)))]


def remove(rng: np.random.Generator, content: bytes) -> bytes:
    place = int(rng.integers(len(content)))
    return content[:place] + content[place + int(rng.integers(1, 30)) :]


def insert(rng: np.random.Generator, content: bytes) -> bytes:
    place = int(rng.integers(len(content) + 1))
    return content[:place] + TOKENS[rng.integers(len(TOKENS))] + content[place:]


def replace_word(rng: np.random.Generator, content: bytes) -> bytes:
    """Put something else in place of a whole word or number."""
    words = list(re.finditer(rb"[A-Za-z0-9_.+-]+", content[:20_000]))
    if not words:
        return content
    word = words[rng.integers(len(words))]
    return content[: word.start()] + TOKENS[rng.integers(len(TOKENS))] + content[word.end() :]


def shuffle_lines(rng: np.random.Generator, content: bytes) -> bytes:
    lines = content.split(b"\n")
    return b"\n".join(lines[row] for row in rng.permutation(len(lines)))


def repeat(rng: np.random.Generator, content: bytes) -> bytes:
    start, stop = sorted(int(x) for x in rng.integers(0, len(content) + 1, 2))
    return content[:stop] + content[start:stop] * int(rng.integers(1, 4)) + content[stop:]


def encode(rng: np.random.Generator, content: bytes) -> bytes:
    encoding = ("utf-16", "utf-8-sig", "utf-32", "cp037", "utf-7")[rng.integers(5)]
    return content.decode("latin-1").encode(encoding, "replace")


def end_lines(rng: np.random.Generator, content: bytes) -> bytes:
    return content.replace(b"\n", (b"\r", b"\r\n", b"\n\n", b"\x0b", b"")[rng.integers(5)])


MUTATIONS: tuple[Mutation, ...] = (
    *(flip, overwrite, truncate, remove, insert, insert, replace_word, replace_word, replace_word),
    *(shuffle_lines, repeat, encode, end_lines),
)


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    """Damage content in one to three ways."""
    for _ in range(int(rng.integers(1, 4))):
        if content:
            content = MUTATIONS[rng.integers(len(MUTATIONS))](rng, content)
    return content[: 2**20]
