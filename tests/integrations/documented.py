"""The programs of the documentation, for tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def program(page: str, file: str, instead: str, model: str) -> str:
    """A program of a page of docs/, with a scripted model in place of the real one."""
    [code] = re.findall(rf"```python\n# {file}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert instead in code
    return code.replace(instead, model)
