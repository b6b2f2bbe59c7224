"""Makes a page of each notebook: its text, its code, and the outputs that are stored in the notebook."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

FOLDER = Path(__file__).parents[1] / "notebooks"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
"""The colours of a terminal, which the outputs of errors contain."""


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook below ``tutorials/``, with the notebook itself and its pictures beside it."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        pictures: dict[str, str] = {}
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=page(path, pictures)))
        files.append(File.generated(config, f"tutorials/{path.name}", abs_src_path=str(path)))
        for name, data in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=base64.b64decode(data)))
    return files


def page(path: Path, pictures: dict[str, str]) -> str:
    """The Markdown of a notebook. Its pictures are added to ``pictures``, in base64, by their file names."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts: list[str] = []
    for cell in cells:
        source = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("](../docs/", "](../"))  # as links between the pages of the site
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [shown(output, f"{path.stem}-{len(pictures) + 1}.png", pictures) for output in cell["outputs"]]
    parts.append(f"---\n\n[Download this notebook]({path.name}), and run it in Jupyter.")
    return "\n\n".join(part for part in parts if part) + "\n"


def shown(output: dict[str, Any], name: str, pictures: dict[str, str]) -> str:
    """The Markdown of one output."""
    data = output.get("data", {})
    if output["output_type"] == "error":
        return text("\n".join(output["traceback"]))
    if "image/png" in data:
        pictures[name] = data["image/png"]
        return f"![What the cell has drawn]({name})"
    if "text/html" in data:
        return f'<div class="output" markdown="0">{"".join(data["text/html"])}</div>'
    return text("".join(data.get("text/plain", output.get("text", []))))


def text(words: str) -> str:
    """A block of plain text, as a terminal shows it."""
    return f"``` {{.text .output .no-copy}}\n{ESCAPES.sub('', words).rstrip()}\n```"
