"""Sphinx: MyST pages, furo, and what `_ext/tables.py` makes out of the code."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "saltext_selfheal"
author = "the saltext_selfheal authors"
project_copyright = author
version = release = version_of("saltext_selfheal")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
    "tables",
]
exclude_patterns = ["_build", "reference/_*.md"]
html_theme = "furo"
html_title = f"saltext_selfheal {version}"

# Single backticks in the loader modules' docstrings name functions and arguments.
default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True

# What a runner function gives before it is turned into Salt's answer: no page describes it.
nitpick_ignore = [("py:class", "saltext_selfheal.console.answering.View")]
