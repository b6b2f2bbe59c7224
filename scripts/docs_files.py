"""Brings what docs/ links to elsewhere in the repository into the site, so that these links are checked too."""

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
    """Let links out of docs/ lead to those files, and show other folders by name only."""
    up = "../" * page.file.src_uri.count("/")

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        return f"[{text}]({up}repository/{target})" if target.startswith(SHOWN) else text

    return re.sub(rf"\[([^\]]*)\]\({re.escape(up)}\.\./([^)]*)\)", link, markdown)
