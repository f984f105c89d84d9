"""How Sphinx builds the documentation: `make docs`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from generate import stale_pages
from sphinx.errors import ConfigError

project = "catheters"
author = "The catheters authors"
copyright = f"2026, {author}"  # Sphinx's name
version = release = version_of("catheters")

extensions = ["myst_nb", "sphinx_copybutton"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "furo"
html_title = "catheters"
html_show_sourcelink = False

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # the tests execute the notebook
copybutton_exclude = ".linenos, .gp"

if stale := stale_pages():
    raise ConfigError(f"not up to date, python docs/generate.py writes them: {', '.join(map(str, stale))}")
