"""The display of cards, tasks and errors in a notebook or terminal."""

from __future__ import annotations

import asyncio
import html.parser
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

import mqtt_agent
import pytest
from brokers import Embedded
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt_agent import (
    Agent,
    AgentCard,
    MemoryStore,
    ServerCard,
    TaskContext,
    TaskHandle,
    ToolCard,
    ToolClient,
    ToolServer,
    errors,
)
from mqtt_agent.agents.lists import PeerList
from mqtt_agent.display import NEXT_STEPS, TaskView, short_traceback
from mqtt_agent.display.html import colour_of
from mqtt_agent.sync import Agent as BlockingAgent
from mqtt_agent.tools.lists import ServerList, ToolList
from support import soon, until

HOSTILE = "<script>alert('x')</script>\"' onmouseover=alert(1) \x1b[31m"
NO_CONTENT = {"area", "br", "hr", "img", "input", "link", "meta"}


class Reader(html.parser.HTMLParser):
    """An HTML parser that fails on careless HTML, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"b", "code", "div", "i", "span", "table", "tbody", "td", "th", "thead", "tr"}, tag
        assert {name for name, _ in attrs} <= {"style"}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(shown: Any) -> str:
    reader = Reader()
    reader.feed(shown._repr_html_())
    reader.close()
    assert reader.open == []
    return reader.text


def tool(**fields: Any) -> ToolCard:
    return ToolCard(**{"tool": "forecast", "server": "weather", **fields})


def test_a_tool_card_shows_what_the_tool_takes() -> None:
    schema = {
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "days": {"type": "integer", "default": 3},
            "units": {"anyOf": [{"enum": ["C", "F"]}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    }
    text = read(tool(input_schema=schema, description="Weather for a city", supports_streaming=True))
    for word in ("forecast", "online", "Weather for a city", "city", "string", "yes", "Where", "integer", "default 3"):
        assert word in text, word
    assert "'C' | 'F' | null" in text
    assert "array of string" in text
    assert "streams" in text
    assert "takes no arguments" in read(tool())


def test_an_agent_card_and_a_server_card_show_what_they_offer() -> None:
    skills: Any = [{"id": "search", "description": "finds papers", "tags": ["papers"]}]
    text = read(AgentCard(name="researcher", capabilities=["research"], status="offline", skills=skills))
    for word in ("researcher", "offline", "research", "search", "finds papers"):
        assert word in text, word
    assert "serves forecast" in read(ServerCard(server="weather:1", tools=["forecast"]))
    assert "serves nothing · on standby" in read(ServerCard(server="weather:1", standby=True))


def test_lists_are_lists_that_notebooks_show_as_tables() -> None:
    cards = ToolList([tool(description="Weather"), tool(server="other")])
    assert isinstance(cards, list)
    assert cards == [*cards]
    assert json.loads(json.dumps(ToolList())) == []
    text = read(cards)
    assert text.count("forecast") == 2
    assert "other" in text
    assert read(ToolList()) == "no tools"
    assert "and 100 more" in read(ToolList([tool()] * 300))
    assert "researcher" in read(PeerList([AgentCard(name="researcher")]))
    assert "weather:1" in read(ServerList([ServerCard(server="weather:1")]))


def test_nothing_that_a_stranger_wrote_gets_into_the_page() -> None:
    schema = {"properties": {HOSTILE: {"type": HOSTILE, "description": HOSTILE}}, "required": [HOSTILE]}
    skills: Any = [{"id": HOSTILE, "name": HOSTILE, "description": HOSTILE, "tags": [HOSTILE]}]
    shown = [
        ToolCard(tool=HOSTILE, server=HOSTILE, title=HOSTILE, description=HOSTILE, input_schema=schema),
        AgentCard(name=HOSTILE, description=HOSTILE, capabilities=[HOSTILE], skills=skills, last_seen=HOSTILE),
        ServerCard(server=HOSTILE, tools=[HOSTILE], last_seen=HOSTILE),
        TaskView("1", HOSTILE, "working", 1, False, 1.0, 0.5, None, HOSTILE, False, False),
    ]
    lists: list[Any] = [ToolList(shown[:1]), PeerList(shown[1:2]), ServerList(shown[2:3])]  # type: ignore[arg-type]
    for each in [*shown, *lists]:
        assert "<script" not in each._repr_html_()
        assert "\x1b" not in each._repr_html_()
        assert "alert('x')" in read(each)
    assert "\x1b" not in repr(shown[3])


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "enum", "anyOf", "$ref", "required", "default"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["properties", "required", "type"]), anything), st.text())
def test_no_card_is_too_strange_to_be_shown(schema: dict[str, Any], description: str) -> None:
    card = tool(input_schema=schema, description=description)
    read(card)
    read(ToolList([card]))


@pytest.mark.parametrize(
    ("state", "progress", "total", "fraction"),
    [
        ("working", 3, 10, 0.3),
        ("working", 30, 10, 1.0),
        ("working", 0.25, None, 0.25),
        ("working", 7, None, None),
        ("working", float("nan"), 10, None),
        ("working", -1, 10, None),
        ("working", None, None, None),
        ("completed", 3, 10, 1.0),
    ],
)
def test_progress_is_a_fraction_where_it_can_be(
    state: str, progress: float | None, total: float | None, fraction: float | None
) -> None:
    view = TaskView("1", "writer", state, 2, False, 75.0, progress, total, "page", False, False)
    assert view.fraction == fraction
    assert "1 min 15 s" in read(view)
    assert "(attempt 2)" in repr(view)


async def test_a_call_shows_its_state_its_server_and_why_it_failed(embedded: Embedded) -> None:
    go_on = asyncio.Event()
    server = ToolServer("pages", broker=embedded.url)

    @server.tool()
    async def write(page: int) -> int:
        await go_on.wait()
        if page < 0:
            raise ValueError(HOSTILE)
        return page

    await soon(server.start())
    client = ToolClient(broker=embedded.url)
    await soon(client.start())
    try:
        good = await soon(client.submit("write", {"page": 1}, wait_online=True))
        bad = await soon(client.submit("write", {"page": -1}, wait_online=True))
        assert "working" in read(good)
        go_on.set()
        assert await soon(good.result()) == 1
        with pytest.raises(errors.ToolFailed) as failed:
            await soon(bad.result())
        assert all(each in read(good) for each in ("write", "completed", str(good.server), good.call_id))
        assert "failed" in read(bad)
        assert str(failed.value).split("<")[0] in read(bad)
    finally:
        await soon(client.stop())
        await soon(server.stop())


@pytest.fixture
async def handle_of(embedded: Embedded) -> Any:
    agents: list[Agent] = []

    async def delegate(handler: Callable[[TaskContext], Awaitable[Any]]) -> TaskHandle:
        writer = Agent("writer", broker=embedded.url, store=MemoryStore(), drain_timeout=0.1)
        writer.on_task(handler)
        planner = Agent("planner", broker=embedded.url, store=MemoryStore())
        agents.extend([planner, writer])
        await soon(writer.start())
        await soon(planner.start())
        return await planner.delegate("writer", "write", wait_online=True)

    yield delegate
    for agent in agents:
        await soon(agent.stop())


async def test_a_terminal_gets_a_line_for_each_change(handle_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    go_on = asyncio.Event()

    async def handler(task: TaskContext) -> str:
        await task.progress(1, total=4, message="page 1")
        await go_on.wait()
        return "done"

    handle: TaskHandle = await handle_of(handler)
    showing = asyncio.ensure_future(handle.show())
    seen = ""

    def shown() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return "page 1" in seen

    await until(shown)
    go_on.set()
    await soon(showing)
    lines = (seen + capsys.readouterr().out).splitlines()
    assert any(line.startswith("writer: working [#####...............]  25% page 1") for line in lines)
    assert lines[-1].startswith("writer: completed [####################] 100%")
    assert len(lines) == len({line.rsplit(" ", 2)[0] for line in lines}), "only what is news gets a line"
    assert [event.type async for event in handle.events()][-1] == "status", "showing took nothing from the events"
    elapsed = handle.elapsed
    assert 0 < elapsed < 10
    assert "100%" in read(handle)
    assert handle.elapsed == elapsed, "the clock has stopped"


async def test_showing_ends_when_the_task_asks_or_fails(handle_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(task: TaskContext) -> None:
        answer = await task.ask("Which year?")
        raise ValueError(f"no papers of {answer}")

    handle: TaskHandle = await handle_of(handler)
    await soon(handle.show())
    assert "input-required Which year?" in capsys.readouterr().out
    assert "Which year?" in read(handle)
    await handle.send("1999")
    await soon(handle.show())
    assert capsys.readouterr().out.splitlines()[-1].startswith("writer: failed")
    assert "no papers of 1999" in read(handle)


def test_the_blocking_face_shows_the_same(embedded: Embedded, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        BlockingAgent("writer", broker=embedded.url, store=MemoryStore()) as writer,
        BlockingAgent("planner", broker=embedded.url, store=MemoryStore()) as planner,
    ):
        writer.on_task(lambda task: "done")
        handle = planner.delegate("writer", "write", wait_online=True)
        handle.show()
        assert capsys.readouterr().out.splitlines()[-1].startswith("writer: completed")
        assert "completed" in read(handle)
        assert "writer" in read(planner.peers())
        assert handle.task_id in read(planner.delegations())
        assert handle.elapsed > 0
        assert handle.created_at > 0
        assert (handle.progress, handle.message) == (None, "")


def test_each_error_names_the_next_step() -> None:
    classes = {name for name, each in vars(errors).items() if inspect.isclass(each)} - {"MQTTAgentError", "ToolError"}
    assert {name for name in classes if issubclass(getattr(errors, name), errors.MQTTAgentError)} == set(NEXT_STEPS)


def test_a_traceback_is_the_readers_own_lines_the_message_and_the_next_step() -> None:
    with pytest.raises(errors.InvalidIdentifier) as caught:
        mqtt_agent.ToolClient("a/b")
    first, *rest = short_traceback(caught.value)
    assert "test_display.py" in first
    assert 'mqtt_agent.ToolClient("a/b")' in first
    assert "mqtt_agent/tools" not in "".join(rest)
    assert "InvalidIdentifier" in rest[1]
    assert "agent id 'a/b' cannot be a topic level" in rest[1]
    assert "one level of an MQTT topic" in rest[2]
    assert caught.value._render_traceback_() == [first, *rest]


@pytest.mark.parametrize("state", ["online", "offline", "working", "input-required", "completed", "failed", "canceled"])
@pytest.mark.parametrize("theme", ["#ffffff", "#1f1f1f"])
def test_a_state_can_be_read_in_a_light_and_in_a_dark_theme(state: str, theme: str) -> None:
    darker, lighter = sorted((luminance(colour_of(state)), luminance(theme)))
    assert (lighter + 0.05) / (darker + 0.05) > 3.9


def luminance(colour: str) -> float:
    """The contrast ratio, as WCAG 2 defines it."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
