"""Let the comment above a field of a configuration be its description in the reference."""

from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """Reads the comments right above fields of the sections of a configuration."""

    def on_class_members(self, *, cls: griffe.Class, **context: Any) -> None:
        """Describe the fields of a section that have no description."""
        if "Section" not in map(str, cls.bases):
            return
        for field in cls.attributes.values():
            if comment := _comment_above(field):
                field.docstring = griffe.Docstring(comment, parent=field)


def _comment_above(field: griffe.Attribute) -> str:
    lines = field.lines_collection[field.filepath]
    last = first = (field.lineno or 1) - 1
    while lines[first - 1].lstrip().startswith("# "):
        first -= 1
    return " ".join(line.strip().removeprefix("# ") for line in lines[first:last])
