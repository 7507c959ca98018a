"""How Sphinx makes the documentation of the pages in this folder; `scripts/docs` calls it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version as installed
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from isl_emu.manual import ENVIRONMENT, FILES, STATUS  # noqa: E402
from isl_emu.scenario.entries import as_toml  # noqa: E402
from isl_emu.scenario.model import Scenario  # noqa: E402  (of this checkout, also where another is installed)
from isl_emu.scenario.quantities import Quantity  # noqa: E402
from isl_emu.units import format_quantity  # noqa: E402

project = "isl-emu"
author = "the isl-emu project"
copyright = author
version = release = installed("isl-emu")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["examples/part"]
suppress_warnings = ["myst.xref_missing"]  # links to headings of files that GitHub shows and a page is not made of

myst_heading_anchors = 3  # pages link to headings as GitHub does
myst_enable_extensions = ["deflist", "dollarmath"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "isl-emu"
html_show_sphinx = False
man_pages = [("commands", "isl-emu", "emulate laser inter-satellite link networks", "", 1)]


def keys_page() -> str:
    """All keys of a scenario as tables, one for each record, made of the records that read them."""
    parts = [
        "# Keys of a scenario",
        "Made of the records that read a scenario: names, kinds, bounds and defaults. What they mean is on the page"
        " about the [format](scenario.md).",
    ]
    for path, record in _records(Scenario, ""):
        rows = [f"| `{field.alias or name}` | {_kind(field)} | {_default(field)} |" for name, field in _fields(record)]
        what = (record.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
        parts += [f"## {path or 'Top level'}", what, "\n".join(["| key | kind | default |", "|---|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _fields(record: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    yield from record.model_fields.items()


def _records(record: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """A record and those within, each with its place in TOML."""
    yield path, record
    for name, field in _fields(record):
        key = f"{path.strip('`[]')}.{field.alias or name}".lstrip(".")
        for inner in _types(field.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _records(inner, f"`[[{key}]]`" if get_origin(field.annotation) is tuple else f"`[{key}]`")


def _types(annotation: Any) -> Iterator[Any]:
    """What an annotation is made of: itself, or the members of its union, tuple or Annotated."""
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)


def _kind(field: FieldInfo) -> str:
    """What a key holds, in words."""
    words = _words(field.annotation, tuple(field.metadata))
    return f"{words}: `{as_toml(field.examples[0])}`" if field.examples else words


def _words(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    for mark in metadata:
        if isinstance(mark, Quantity):
            return _quantity(mark)
    if origin is Annotated:
        return _words(inner[0], inner[1:])
    if origin is Literal:
        return ", ".join(f"`{value!r}`".replace("'", '"') for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_words(one) for one in inner if one is not type(None)))
    if origin is tuple:
        return f"list of {_words(inner[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    bounds = [f"{sign} {value}" for mark in metadata for sign, value in _bounds(mark)]
    names = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "`true` or `false`",
        "datetime": "UTC time",
    }
    word = names.get(getattr(annotation, "__name__", ""), "see there")
    return f"{word} {', '.join(bounds)}".strip()


def _bounds(mark: Any) -> Iterator[tuple[str, Any]]:
    for name, sign in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
        if (value := getattr(mark, name, None)) is not None:
            yield sign, value


def _quantity(mark: Quantity) -> str:
    limits = (("from", mark.low), ("above", mark.above), ("to", mark.high))
    shown = [f"{word} {format_quantity(value, mark.dimension)}" for word, value in limits if value is not None]
    return f"quantity {' '.join(shown)}".strip()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == ():
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    for mark in (one for part in _types(field.annotation) for one in getattr(part, "__metadata__", ())):
        if isinstance(mark, Quantity):
            return f'`"{format_quantity(value, mark.dimension)}"`'
    for mark in field.metadata:
        if isinstance(mark, Quantity):
            return f'`"{format_quantity(value, mark.dimension)}"`'
    return f"`{str(value).lower() if isinstance(value, bool) else repr(value)}`".replace("'", '"')


def common_to_commands() -> str:
    """What holds for all commands, as `isl-emu --help` ends with it."""
    parts = []
    for heading, entries in (("Exit status", STATUS), ("Environment", ENVIRONMENT), ("Files", FILES)):
        parts += [f"## {heading}", *(f"`{name}`\n: {text}" for name, text in entries.items())]
    return "\n\n".join(parts) + "\n"


def write_pages(_: Sphinx) -> None:
    """Write the pages that are made of the program."""
    (HERE / "keys.md").write_text(keys_page(), encoding="utf-8")
    (HERE / "common.txt").write_text(common_to_commands(), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Make what is made of the program before pages are read."""
    app.connect("builder-inited", write_pages)
