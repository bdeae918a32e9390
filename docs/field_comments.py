"""Let what stands beside a field of a configuration be its description in the reference."""

import pydoc
from typing import Any

import griffe

from hlr_jax.config.settings import meanings


class FieldComments(griffe.Extension):
    """Describes the fields of the sections of a configuration, as `hlr-jax fields` does."""

    def on_class_members(self, *, cls: griffe.Class, **context: Any) -> None:
        """Describe the fields of a section that have no description."""
        if "Section" not in map(str, cls.bases):
            return
        section = pydoc.locate(cls.path)
        assert isinstance(section, type)
        texts = meanings(section)
        for name, field in cls.attributes.items():
            if name in texts:
                field.docstring = griffe.Docstring(texts[name], parent=field)
