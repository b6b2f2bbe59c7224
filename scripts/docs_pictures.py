"""Puts each drawing (SVG) of docs/pictures into its page, so that the drawing has the colours of the chosen theme.

As a picture of its own, for example on the page of the repository, a drawing has the colours of its own style element.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def on_page_content(html: str, page: Any, **kwargs: Any) -> str:
    """Replace each picture that is a drawing by the drawing itself."""

    def drawing(match: re.Match[str]) -> str:
        tag = match[0]
        source, words = (re.search(rf'{name}="([^"]*)"', tag) for name in ("src", "alt"))
        if source is None or not source[1].endswith(".svg"):
            return tag
        path = (Path(page.file.abs_src_path).parent / source[1]).resolve()
        svg = path.read_text(encoding="utf-8")
        svg = re.sub(r"<style>.*?</style>\s*", "", svg, flags=re.DOTALL)  # the site's own style has the colours
        label = words[1] if words else path.stem
        svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()
        return f'<span class="scroll">{svg}</span>'

    return re.sub(r"<img [^>]*>", drawing, html)
