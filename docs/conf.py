"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

with Path(__file__).parents[1].joinpath("pyproject.toml").open("rb") as file:
    release = version = tomllib.load(file)["project"]["version"]

project = "STT"
author = "The STT authors"
copyright = "2026 The STT authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The reference is made of docstrings, in which `this` is code.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_attr_annotations = False
nitpick_ignore_regex = [("py:exc", "EndOfStream|ConnectionFailed|.*ResourceError")]  # anyio's

html_theme = "furo"
html_title = f"STT {release}"
html_copy_source = False
html_show_sphinx = False


def keep_sentences(_: Any, what: str, *details: Any) -> None:
    """Napoleon would take what stands before a colon in the first sentence about a property for its type."""
    lines: list[str] = details[-1]
    if what in ("property", "attribute") and lines:
        lines[0] = lines[0].replace(": ", ", ")


def setup(app: Any) -> None:
    """Go before napoleon, which has the priority 500."""
    app.connect("autodoc-process-docstring", keep_sentences, priority=400)
