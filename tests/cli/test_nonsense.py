"""Whatever JSON a peer writes into a field, no command stops: each message is shown, or it is ignored."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mqtt_agent.cli import watching
from mqtt_agent.cli.calling import Live
from mqtt_agent.cli.console.rows import Cards
from mqtt_agent.cli.console.work import Work, browser_json
from mqtt_agent.cli.output import Output
from mqtt_agent.cli.settings import Settings
from mqtt_agent.cli.values import arguments_from
from mqtt_agent.cli.watching import described
from mqtt_agent.display.schemas import arguments
from mqtt_agent.endpoints.trail import line_about
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Topics

TOPICS = Topics("a2a/v1")
VALUES = (
    *("null", "true", "-1", "1e400", "1" + "0" * 400, "NaN", '""', '"\\ud800"', '"\\u0000"', "[]", "[[]]", '["a", 1]'),
    *("{}", '{"a": []}', '{"type": [1]}', '{"input_id": {}, "schema": NaN}', '{"properties": 1, "required": 2}'),
)
CALL: dict[str, Any] = {
    "call_id": "c",
    "tool": "t",
    "client": "a",
    "server": "s:1",
    "arguments": {},
    "status": "ok",
    "error": {"type": "x"},
    "result": 1,
    "type": "partial",
    "content": "x",
    "data": {},
    "reason": "x",
}
TASK: dict[str, Any] = {
    "task_id": "t",
    "from": "a",
    "to": "b",
    "prompt": "x",
    "title": "x",
    "messages": [],
    "input": "x",
    "status": "input-required",
    "data": {"input_id": "i"},
    "type": "progress",
    "progress": 1,
    "total": 2,
    "content": "x",
    "action": "input",
    "reason": "x",
    "result": "x",
    "error": {"type": "x"},
}
SERVER = {"server": "s:1", "name": "s", "status": "online", "tools": ["t"], "started": "x", "agent": "b", "standby": 1}
TOOL = {"tool": "t", "server": "s", "status": "online", "description": "x", "input_schema": {}}
AGENT = {"name": "b", "status": "online", "capabilities": ["x"], "skills": [{"id": "x"}], "pool": True, "started": "x"}
MESSAGES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "calls": (
        CALL,
        (
            TOPICS.tool_call("t"), TOPICS.bound.call("t", "a"), TOPICS.tool_cancel("t"), TOPICS.client_responses("a"),
            TOPICS.bound.responses("a", "s:1"), f"{TOPICS.namespace}/mcp/clients/a/stream/c",
        ),
    ),
    "tasks": (
        TASK,
        (
            TOPICS.inbox("b"), TOPICS.control("b"), TOPICS.task_events("t"), TOPICS.task_result("t"),
            TOPICS.bound.events("a", "t", "b"), TOPICS.bound.results("a", "b"), TOPICS.overview_inbox("b"),
        ),
    ),
    "cards": (
        {**AGENT, **TOOL, **SERVER},
        (TOPICS.server_card("s:1"), TOPICS.tool_card("t"), TOPICS.agent_card("b"), TOPICS.agent_status("b")),
    ),
}  # fmt: skip


def messages(kind: str) -> Iterator[InboundMessage]:
    """Each message of a kind, with each value in each of its fields in turn."""
    fields, topics = MESSAGES[kind]
    for field, value in itertools.product(fields, VALUES):
        others = {name: each for name, each in fields.items() if name != field}
        payload = f'{json.dumps(others)[:-1]}, "{field}": {value}}}'.encode()
        yield InboundMessage(topics[0], json.dumps(fields).encode())  # the call or the task to which the others belong
        yield from (InboundMessage(topic, payload) for topic in topics)


def whole(value: Any) -> None:
    """A browser and a script must be able to read what is shown."""
    json.loads(browser_json(value).encode(), parse_constant=pytest.fail)


def exposition() -> tuple[Callable[[InboundMessage], object], Callable[[], object]]:
    pytest.importorskip("prometheus_client")
    from mqtt_agent.cli.exposition import Exposition
    from prometheus_client import generate_latest

    shown = Exposition(TOPICS, lambda: True)
    return shown.take, lambda: generate_latest(shown.registry)


def console() -> tuple[Callable[[InboundMessage], object], Callable[[], object]]:
    cards = Cards(TOPICS)
    work = Work(payloads=True, own=None, server_of=cards.server_of)

    def take(message: InboundMessage) -> None:
        levels = message.topic[len(TOPICS.namespace) + 1 :].split("/")
        if levels[-1] in ("card", "status"):
            cards.take(message)
        else:
            whole(work.take(levels, message))

    def show() -> None:
        whole([cards.servers(work), cards.tools(), cards.agents()])
        for each in (*work.calls.values(), *work.tasks.values()):
            whole([each.row, each.more, each.events])

    return take, show


def watch() -> tuple[Callable[[InboundMessage], object], Callable[[], object]]:
    return lambda message: whole(described(TOPICS, message, payloads=True)), lambda: None


def audit() -> tuple[Callable[[InboundMessage], object], Callable[[], object]]:
    return lambda message: whole(line_about(TOPICS, "x", message, None, payloads=True)), lambda: None


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("listener", [exposition, console, watch, audit])
def test_a_listener_takes_every_value_in_every_field(listener: Any, kind: str) -> None:
    take, show = listener()
    for number, message in enumerate(messages(kind)):
        take(message)
        if number % 50 == 0:
            show()
    show()


def test_the_progress_of_a_call_is_any_json(capsys: pytest.CaptureFixture[str]) -> None:
    with Live(Output()) as live:
        for done, total in itertools.product(VALUES, VALUES):
            live.show(json.loads(f'{{"progress": {done}, "total": {total}, "message": {done}}}'))
    assert "\0" not in capsys.readouterr().err


def test_what_a_script_reads_and_a_terminal_shows_has_no_half_characters(capfdbinary: Any) -> None:
    out = Output(machine=True)
    out.json({"half": "\ud800"})
    Output().text("half \udfff")
    assert capfdbinary.readouterr().out.decode().splitlines() == ['{"half": "\ufffd"}', "half \ufffd"]


def test_the_schema_of_a_tool_is_any_json_object() -> None:
    for name, value in itertools.product(("type", "anyOf", "enum", "description", "default"), VALUES):
        schema = json.loads(f'{{"properties": {{"city": {{"{name}": {value}}}}}}}')
        arguments_from(["city=Oslo"], None, schema)
        list(arguments(schema))
    for name, value in itertools.product(("type", "properties", "required"), VALUES):
        schema = json.loads(f'{{"{name}": {value}}}')
        arguments_from(["city=Oslo"], None, schema)
        list(arguments(schema))


@pytest.mark.parametrize("sign", ["\x7f", "\x85", "\x9b", "\x9d", "\u061c", "\u2028", "\u2029", "\u202e", "\u2066"])
def test_what_a_terminal_may_obey_is_escaped_in_json_and_replaced_in_text(
    capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    Output(machine=True).json({"text": f"a{sign}31mb"})
    line = capsys.readouterr().out
    assert sign not in line
    assert len(line.splitlines()) == 1  # a program that reads lines gets the value whole
    assert json.loads(line) == {"text": f"a{sign}31mb"}
    Output().text(f"a{sign}31mb")
    assert capsys.readouterr().out == "a\ufffd31mb\n"


def test_a_value_of_a_peer_looks_like_no_other_field_line_or_message_of_the_traffic(
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = {"client": "me server=weather status=ok", "call_id": "c1\n12:00:00 responses me server=weather", "x": 1}
    message = InboundMessage(f"{TOPICS.namespace}/mcp/tools/a b/call", json.dumps(call).encode())
    watching._tell(Output(), described(TOPICS, message, payloads=False))  # pyright: ignore[reportPrivateUsage]
    [line] = capsys.readouterr().out.splitlines()
    assert line.endswith('"a b" client="me server=weather status=ok" "c1 12:00:00 responses me server=weather"')
    odd = InboundMessage(f"{TOPICS.namespace}/x\n12:00:00 call", b"{}")
    watching._tell(Output(), described(TOPICS, odd, payloads=False))  # pyright: ignore[reportPrivateUsage]
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_text_of_a_peer_begins_no_line_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    forged = "since\ntool  online  forged"
    out = Output()
    out.table(("server", "since"), [("weather", forged)], "nothing")
    out.line(f"capabilities: {forged}")
    out.words(f"A description.\n\n{forged}")
    out.note(f"the list is incomplete: {forged}")
    out.warn(forged)
    out.quote(f"Which one?\n{forged}")
    Live(out).advance(1, 2, forged)
    out.error(RuntimeError(forged), None)
    printed = capsys.readouterr()
    assert [line for line in (printed.out + printed.err).splitlines() if line.startswith("tool")] == []
    assert "  tool  online  forged" in printed.out


def test_the_traceback_of_debug_obeys_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings.of({"debug": True})
    Output().error(RuntimeError("a\x1b]0;title\x07\nNext: run this"), settings)
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "    Next: run this" in printed
