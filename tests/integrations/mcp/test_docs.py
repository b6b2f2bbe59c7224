"""The example of docs/mcp.md, run word for word with a server of the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from brokers import Embedded
from support import soon

from .conftest import OddServer

PAGE = Path(__file__).parents[3] / "docs/mcp.md"


async def test_the_bridge_of_the_page_offers_the_tools(
    embedded: Embedded, odd: OddServer, capsys: pytest.CaptureFixture[str]
) -> None:
    odd.offer("read_file")
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    command = '["npx", "-y", "@modelcontextprotocol/server-filesystem", "/data"]'
    assert command in code
    program = code.replace(command, repr(odd.command)).replace("mqtt://localhost", embedded.url)
    names: dict[str, Any] = {}
    exec(program, names)
    await soon(names["main"](), 30)
    assert capsys.readouterr().out == "['files.read_file']\n"


def test_each_test_that_the_page_names_exists() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGE.read_text())
    assert named
    assert [each for each in named if f"def {each}(" not in text] == []
