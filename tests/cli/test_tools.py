"""Tools at the command line: serve them, look at them, call them."""

from __future__ import annotations

import asyncio

import pytest
from mqtt_agent import Connection
from mqtt_agent.wire import ServerCard, Topics, encode
from support import soon

from .terminal import Terminal


def test_functions_of_a_module_are_served_listed_shown_and_called(terminal: Terminal) -> None:
    serving = terminal.start("serve", "weather")
    serving.says("serves forecast, slow, endless, broken")
    listed = terminal.inside("tools").out
    assert "forecast" in listed
    assert "Weather forecast for a city." in listed
    assert {card["tool"] for card in terminal.inside("tools", "--json").lines} == {
        "forecast",
        "slow",
        "endless",
        "broken",
    }
    assert "city" in terminal.inside("tools", "forecast").out
    assert terminal.inside("servers", "--json").lines[0]["name"] == "weather"
    said = terminal.inside("call", "forecast", "city=5", "days=2", "tags=a", "tags=b", "--json")
    assert said.lines[-1]["result"] == {"city": "5", "days": 2, "tags": ["a", "b"]}
    said = terminal.inside("call", "forecast", "-a", "-", "days:=7", stdin='{"city": "Oslo", "days": 1}', code=0)
    assert '"days": 7' in said.out
    terminal.write("city.txt", "Bergen")
    terminal.write("all.json", '{"city": "Kiel"}')
    assert "Kiel" in terminal.inside("call", "forecast", "-a", "@all.json").out
    assert "Bergen" in terminal.inside("call", "forecast", "city=@city.txt").out


def test_progress_and_partials_go_to_the_standard_error_and_the_result_to_the_output(served: Terminal) -> None:
    said = served.run("call", "slow")  # in a process of its own: which stream is which, is seen only there
    assert said.out == "done\n"
    assert said.err.splitlines() == ["half 1/2", "a part"]
    lines = served.inside("call", "slow", "--json").lines
    assert lines[:2] == [{"partial": {"progress": 1, "total": 2, "message": "half"}}, {"partial": "a part"}]
    assert lines[2]["result"] == "done"


def test_ctrl_c_cancels_the_call_at_its_server_and_is_quiet(terminal: Terminal) -> None:
    serving = terminal.start("serve", "weather")
    serving.says("serves")
    calling = terminal.start("call", "endless")
    calling.says("begun")
    assert calling.interrupt() == 130
    assert calling.output == "begun\n"
    serving.says("the handler was canceled")
    assert serving.interrupt() == 0


def test_an_error_says_what_why_and_what_to_do_next(served: Terminal) -> None:
    said = served.inside("call", "forcast", code=3).err
    assert "did you mean 'forecast'?" in said
    assert "Next: see which tools are online" in said
    wrong = served.inside("call", "forecast", code=1).err
    assert "mqtt-agent tools forecast" in wrong
    assert "argument 'city' is missing" in wrong.replace('"', "'")
    failed = served.inside("call", "broken", code=1)
    assert "no wind" in failed.err
    assert "\x1b" not in failed.err  # nothing that a peer wrote reaches the terminal as an escape sequence
    error = served.inside("call", "broken", "--json", code=1).lines[0]["error"]
    assert error["type"] == "ToolFailed"
    assert error["next"]
    assert "did you mean 'slow'?" in served.inside("tools", "slo", code=3).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("call", "forecast", "city"), "write name=value"),
        (("call", "forecast", "days:=x"), "days is no JSON"),
        (("call", "forecast", "-a", "[1]"), "must be a JSON object"),
        (("call", "forecast", "city=@nothing.txt"), "cannot be read"),
        (("tools", "--token-file", "nothing"), "nothing cannot be read"),
        (("tools", "--user", "me"), "has no password"),
        (("tools", "--context", "nothing"), "no context 'nothing'"),
        (("tools", "--broker", "http://x"), "not a scheme"),
        (("call", "a/b"), "a/b"),
        (("call", "forecast", "-a", "@nothing.json"), "nothing.json cannot be read"),
        (("tols",), "Did you mean 'tools'?"),
        (("tasks", "--state", "lost"), "the states are submitted"),
        (("delegate", "writer"), "say what is to be done: mqtt-agent delegate writer PROMPT"),
        (("answer", "t-1"), "give one answer: mqtt-agent answer t-1 TEXT"),
        (("answer", "t-1", "blue", "--value", "1"), "give one answer"),
    ],
)
def test_a_wrong_command_line_is_refused_with_exit_code_2(
    terminal: Terminal, words: tuple[str, ...], message: str
) -> None:
    assert message in terminal.inside(*words, code=2).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("serve", "nothing"), "no module 'nothing'"),
        (("serve", "weather:nothing"), "weather has no nothing"),
        (("serve", "nothing.py"), "no file nothing.py"),
        (("serve", "wrong.py"), "ZeroDivisionError: division by zero"),
        (("serve", "json:JSONDecoder"), "cannot be served"),
    ],
)
def test_what_cannot_be_served_is_told_with_exit_code_2(
    terminal: Terminal, words: tuple[str, ...], message: str
) -> None:
    assert message in terminal.inside(*words, code=2).err


def test_what_is_offline_is_forgotten_after_asking(terminal: Terminal) -> None:
    serving = terminal.start("serve", "weather")
    serving.says("serves")
    assert "only what is offline" in terminal.inside("forget", "slow", code=2).err
    assert serving.interrupt() == 0
    assert "--all also shows" in terminal.inside("tools").err
    assert "slow" in terminal.inside("tools", "--all").out
    terminal.run("forget", "slow", stdin="n\n", code=1)
    assert "slow" in terminal.inside("tools", "--all").out
    terminal.inside("forget", "slow", stdin="y\n")
    assert "slow" not in terminal.inside("tools", "--all").out
    terminal.inside("forget", "--yes")
    assert terminal.inside("tools", "--all", "--json").out == ""


def test_the_traffic_is_shown_without_what_may_be_secret(served: Terminal) -> None:
    watching = served.start("watch")
    watching.says("watching")
    open_watching = served.start("watch", "--payloads", "--json", "--retained")
    open_watching.says("/mcp/tools/forecast/card")
    served.inside("call", "forecast", "city=Oslo", "--as", "me")
    seen = watching.says("status=ok")
    assert "call      forecast client=me" in seen
    assert "Oslo" not in seen
    assert "/mcp/tools/forecast/call/me" in open_watching.says("status=ok")  # a sender-bound topic
    assert watching.interrupt() == 130
    open_watching.interrupt()
    for output in (watching.output, open_watching.output):
        assert "barrier-" not in output  # what endpoints send to themselves is no traffic
    assert "Oslo" in open_watching.output


def test_calls_are_measured_and_leave_nothing_behind(terminal: Terminal) -> None:
    line = terminal.inside("bench", "--calls", "20", "--at-once", "2", "--json").lines[0]
    assert line["at_once"] == 2
    assert line["calls_per_second"] > 0
    assert terminal.inside("tools", "--all", "--json").out == ""


def test_a_program_that_ends_with_run_is_served_too(terminal: Terminal) -> None:
    terminal.write(
        "program.py",
        """
import os
from mqtt_agent import ToolServer

server = ToolServer("program", namespace=os.environ["MQTT_AGENT_NAMESPACE"])

@server.tool
def answer() -> int:
    return 42

server.run()
""",
    )
    serving = terminal.start("serve", "program.py")
    serving.says("serves answer")
    assert terminal.inside("call", "answer").out == "42\n"
    assert serving.interrupt() == 0


async def test_a_list_that_lacks_a_server_says_so_to_people_and_to_machines(terminal: Terminal) -> None:
    namespace = terminal.environment["MQTT_AGENT_NAMESPACE"]
    lost = ServerCard(server="odd", tools=["x"], status="offline", unavailable="the machine is off")
    connection = Connection(terminal.environment["MQTT_AGENT_BROKER"])
    await soon(connection.start())
    await soon(connection.publish(Topics(namespace).server_card("odd"), encode(lost), retain=True))
    await soon(connection.stop())
    for words in (["tools"], ["servers"], ["tools", "--json"]):
        said = await asyncio.to_thread(terminal.inside, *words)
        assert "the list is incomplete: server odd: the machine is off" in said.err
        assert said.out == ""
    said = await asyncio.to_thread(terminal.inside, "tools", "x", code=3)
    assert "the list is incomplete: server odd" in said.err
