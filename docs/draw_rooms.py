"""Draw the rooms of the library and the arrows between them, from its imports.

    python docs/draw_rooms.py          # renews the drawing in docs/architecture.md

A room is a folder or a file of `hlr_jax/`. An arrow A --> B says that A imports B; an arrow that
a longer way implies is left out.
"""

import ast
import functools
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hlr_jax"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by docs/draw_rooms.py -->\n", "<!-- end of the drawing -->\n"

Arrows = dict[str, set[str]]


def rooms() -> dict[str, list[pathlib.Path]]:
    """The files of each room; the package's `__init__` and `__main__`, its faces, are none."""
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.name in ("__init__.py", "__main__.py") and len(inside.parts) == 1:
            continue
        found.setdefault(inside.parts[0].removesuffix(".py"), []).append(path)
    return found


def imported(path: pathlib.Path) -> set[str]:
    """The modules of the library that a file names in imports, wherever they stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("hlr_jax.")}


def arrows() -> Arrows:
    """For each room, the rooms that it imports."""
    found = rooms()
    return {
        room: {name.split(".")[1] for path in paths for name in imported(path)}
        & (found.keys() - {room})
        for room, paths in found.items()
    }


def floors(found: Arrows) -> dict[str, int]:
    """The floor of each room: it stands above all that it imports; floor 1 is the ground.

    Raises:
      ValueError: rooms import each other in a circle.
    """

    @functools.cache
    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        if room in above:
            raise ValueError("rooms in a circle: " + " -> ".join([*above, room]))
        return 1 + max((floor(other, (*above, room)) for other in found[room]), default=0)

    return {room: floor(room) for room in found}


def drawing() -> str:
    """The rooms as a Mermaid diagram, the top floor first."""
    found = arrows()
    floor = floors(found)
    order = sorted(found, key=lambda room: (-floor[room], room))
    lines = ["```mermaid", "graph TD"]
    lines += [f'  {room}["{room}{"/" if (PACKAGE / room).is_dir() else ".py"}"]' for room in order]
    for room in order:
        implied = {beyond for other in found[room] for beyond in _reached(found, other)}
        targets = sorted(found[room] - implied, key=order.index)
        lines += [f"  {room} --> {target}" for target in targets]
    return "\n".join([*lines, "```"]) + "\n"


def _reached(found: Arrows, room: str) -> set[str]:
    """All rooms that a room imports, directly or not."""
    return found[room] | {beyond for other in found[room] for beyond in _reached(found, other)}


def redrawn(page: str) -> str:
    """A page with the drawing renewed."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + drawing() + END + after


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
