"""What the tests of data share: small files of data sets, and the check of error messages."""

import gzip
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from hlr_jax.errors import InputError


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    """Write a file, in a folder that need not exist; compressed if its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode(encoding) if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def fault(call: Callable[..., object], *arguments: object) -> str:
    """Return the message of the InputError that a call raises, which must be one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def ratings(num_users: int = 12, num_items: int = 15) -> str:
    """Lines of user, item, rating, timestamp; about half of all pairs, rated 1 to 5."""
    lines = [
        "\t".join(map(str, (user, 100 + item, 1 + (user + 2 * item) % 5, 10 * user + item)))
        for user in range(1, num_users + 1)
        for item in range(num_items)
        if (user * 7 + item * 3) % 2
    ]
    return "\n".join(lines) + "\n"


def write_split(folder: Path, extension: str = "csv", valid: bool = True) -> Path:
    """Write a split of three users as tables, or as adjacency lists with extension "txt"."""
    if extension == "txt":
        parts = {"train": "0 1 2 3\n1 2 3 4\n2 9 1 2\n", "valid": "0 4\n1 1\n2 3\n"}
        parts["test"] = "0 9\n1 9\n2 4\n"
    else:
        parts = {
            "train": "user,item\n7,1\n7,2\n8,2\n8,3\n",
            "valid": "user,item\n7,3\n",
            "test": "user,item\n8,1\n9,5\n",
        }
    for part, text in parts.items():
        if valid or part != "valid":
            write(folder / f"{part}.{extension}", text)
    return folder


def write_ncf(folder: Path, prefix: str = "pinterest-20") -> None:
    """Write a leave-one-out split of five users, the last of whom has no test item."""
    train = [f"{u}\t{(u + k) % 7}\t1\t{k}" for u in range(5) for k in (3, 0, 1)]
    write(folder / f"{prefix}.train.rating", "\n".join(train) + "\n")
    test = [f"{u}\t{(u + 4) % 7}\t1\t9" for u in range(4)]
    write(folder / f"{prefix}.test.rating", "\n".join(test) + "\n")
    given = [f"({u},{(u + 4) % 7})\t{(u + 5) % 7}\t99" for u in range(4)]
    write(folder / f"{prefix}.test.negative", "\n".join(given) + "\n")


def joined(rows: Iterable[Sequence[object]], separator: str, end: str = "\n") -> str:
    """Return rows of fields as text."""
    return "".join(separator.join(str(value) for value in row) + end for row in rows)
