"""Adds files outside docs/ that the pages link to, so that the site contains them and their links are checked too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = ("benchmarks/results",)
PAGES = {"CHANGELOG.md": "changelog.md"}
"""The files outside docs/ that are pages of the site, and the names of the pages."""


def on_files(files: Files, config: Any) -> Files:
    """Add the files of other folders below ``repository/``, and the pages that are kept elsewhere."""
    for folder in SHOWN:
        for path in sorted((ROOT / folder).iterdir()):
            name = f"repository/{path.relative_to(ROOT)}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for source, page in PAGES.items():
        # The file's links are relative to the repository; on the site, it lies beside the pages of docs/.
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Rewrite links to these files; a link to any other file outside docs/ becomes plain text."""
    up = "../" * page.file.src_uri.count("/")

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = target.partition("#")[0]
        if path in PAGES:
            return f"[{text}]({up}{target.replace(path, PAGES[path], 1)})"
        if path.startswith("notebooks/") and path.endswith(".ipynb"):  # see docs_notebooks.py
            return f"[{text}]({up}tutorials/{Path(path).stem}.md)"
        return f"[{text}]({up}repository/{target})" if target.startswith(SHOWN) else text

    return re.sub(rf"\[([^\]]*)\]\({re.escape(up)}\.\./([^)]*)\)", link, markdown)
