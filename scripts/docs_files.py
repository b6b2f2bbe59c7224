"""Adds files outside docs/ that the pages link to, so that the site contains them and their links are checked too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = ("benchmarks/results",)


def on_files(files: Files, config: Any) -> Files:
    """Add the files of other folders, below ``repository/``."""
    for folder in SHOWN:
        for path in sorted((ROOT / folder).iterdir()):
            name = f"repository/{path.relative_to(ROOT)}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Rewrite links to these files; a link to any other folder outside docs/ becomes plain text."""
    up = "../" * page.file.src_uri.count("/")

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        return f"[{text}]({up}repository/{target})" if target.startswith(SHOWN) else text

    return re.sub(rf"\[([^\]]*)\]\({re.escape(up)}\.\./([^)]*)\)", link, markdown)
