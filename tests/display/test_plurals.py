"""Numbers in messages."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from mqtt_agent.display.suggestions import counted
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.tools.serving.conflicts import listed
from mqtt_agent.wire import ServerCard

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("count", "says"), [(0, "0 tools"), (1, "1 tool"), (2, "2 tools"), (1200, "1,200 tools")])
def test_a_number_has_its_noun_in_the_right_form(count: int, says: str) -> None:
    assert counted(count, "tool") == says


def test_one_more_tool_is_no_more_tools(caplog: pytest.LogCaptureFixture) -> None:
    assert listed(["a", "b", "c", "d", "e", "f"]).endswith("'e' and 1 more tool")
    catalog = Catalog()
    with caplog.at_level(logging.WARNING):
        for name in ("one", "other"):
            catalog.put_server(ServerCard(server=name, status="online", tools=["t", "u"]))
    assert "tool 't' and 1 more tool, so" in caplog.text


def test_no_other_code_makes_a_plural_by_itself() -> None:
    own = re.compile(r"""(['"])\1 if .{1,60} == 1 else ['"]s['"]|['"]s['"] if .{1,60} else (['"])\2""")
    sources = [*ROOT.glob("core/src/**/*.py"), *ROOT.glob("integrations/*/src/**/*.py")]
    found = [str(path) for path in sources if own.search(path.read_text())]
    assert found == [str(ROOT / "core/src/mqtt_agent/display/suggestions.py")]
