"""Ctrl-C is quiet in every verb, at every moment, and Tab completes the verbs and their options."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from brokers import Ejabberd
from mqtt_agent import TaskContext
from mqtt_agent.sync import Agent

from .terminal import Terminal
from .test_bad_input import MCP_SERVER, remote
from .verbs import VERBS

__all__ = ["remote"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

ENDS_BY_ITSELF = {
    *("tools", "servers", "agents", "show", "cancel", "tasks", "doctor"),
    *(name for name in VERBS if name.partition(" ")[0] in ("acl", "context", "keys", "token")),
    "audit query",
}
WAITING: dict[str, tuple[tuple[str, ...], str, int]] = {
    "a2a join": (("REMOTE", "--agent-id", "far"), "does tasks at", 130),
    "a2a serve": (("--port", "0"), "serves A2A clients", 130),
    "answer": (("t-1", "blue", "--follow", "--as", "asker"), "the answer is sent", 130),
    "audit listen": ((), "keeping", 130),
    "bench": (("--calls", "100000"), "", 130),
    "bridge": (("--name", "clock", "--", sys.executable, "mcp_server.py"), "serves 0 tools", 130),
    "broker": ((), "the broker runs", 130),
    "call": (("endless",), "begun", 130),
    "console": ((), "the console is at", 130),
    "delegate": (("slow", "x", "--as", "giver"), "if this command ends", 130),
    "forget": ((), "Remove these cards?", 130),
    "mcp": ((), "", 130),
    "metrics": (("--port", "0"), "Prometheus reads", 130),
    "resume": (("t-2", "--as", "resumer"), "still working", 130),
    "serve": (("weather",), "serves forecast", 0),
    "watch": ((), "watching", 130),
}
"""The verbs that wait: their words, what they say when they wait, and their exit code after Ctrl-C."""


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
}


def test_the_table_has_each_verb_of_the_parser() -> None:
    assert WAITING.keys() | ENDS_BY_ITSELF == set(VERBS)


def test_ctrl_c_is_quiet_while_the_command_is_being_loaded(terminal: Terminal) -> None:
    terminal.write("tomli_w.py", "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    loading = terminal.start("tools")  # python -m finds the module of the working folder first
    assert loading.ends() == -signal.SIGINT
    assert loading.output == ""


def test_ctrl_c_at_a_question_of_forget_removes_nothing(terminal: Terminal) -> None:
    serving = terminal.start("serve", "weather")
    serving.says("serves")
    assert serving.interrupt() == 0
    ours, theirs = os.openpty()
    try:
        asking = terminal.start("forget", stdin=theirs)
        asking.says("Remove these cards?")
        assert asking.interrupt() == 130
        assert "mqtt-agent:" not in asking.output
    finally:
        os.close(ours)
        os.close(theirs)
    assert "slow" in terminal.inside("tools", "--all").out


@pytest.fixture
def slow_agent(terminal: Terminal) -> Iterator[Terminal]:
    """A terminal with an agent that asks for a color, and then never ends."""
    at: dict[str, Any] = {name: terminal.environment[f"MQTT_AGENT_{name.upper()}"] for name in ("broker", "namespace")}
    agent = Agent("slow", store=None, drain_timeout=0, **at)

    @agent.on_task
    async def wait(task: TaskContext) -> None:
        if task.prompt == "ask":
            await task.ask("Which colour?")
        while True:
            await task.stream("still working")
            await asyncio.sleep(0.05)

    with agent:
        terminal.inside("delegate", "slow", "ask", "--task-id", "t-1", "--as", "asker", code=1)
        terminal.inside("delegate", "slow", "x", "--task-id", "t-2", "--as", "resumer", "--detach")
        yield terminal


@pytest.mark.long
@pytest.mark.parametrize("verb", WAITING)
def test_ctrl_c_is_quiet_in_every_verb_that_waits(slow_agent: Terminal, remote: str, verb: str) -> None:
    terminal = slow_agent
    terminal.write("mcp_server.py", MCP_SERVER)
    words, says, code = WAITING[verb]
    if verb == "call":
        terminal.start("serve", "weather").says("serves")
    if verb == "forget":
        serving = terminal.start("serve", "weather")
        serving.says("serves")
        assert serving.interrupt() == 0
    running = terminal.start(*verb.split(), *(word.replace("REMOTE", remote) for word in words))
    if verb == "bench":
        while "bench-" not in terminal.inside("tools", "--json").out:
            pass
    if verb == "mcp":
        running.type(json.dumps(INITIALIZE) + "\n")
        says = '"id":1'
    before = running.says(says)
    assert running.interrupt() == code
    for word in ("Error", "rror:", "Next:", "Traceback", "exception"):
        assert word not in running.output.removeprefix(before)


@pytest.mark.parametrize("verb", ["watch", "audit"])
def test_a_verb_that_listens_ends_when_its_session_is_taken_over(
    terminal: Terminal, ejabberd: Ejabberd, verb: str
) -> None:
    terminal.environment["MQTT_AGENT_BROKER"] = ejabberd.url
    says = {"watch": "watching", "audit": "keeping"}[verb]
    name = terminal.environment["MQTT_AGENT_NAMESPACE"].rpartition("/")[2]
    me = ("--as", name, *(("--client-id", name) if verb == "watch" else ()))
    first = terminal.start(verb, *me)
    first.says(says)
    second = terminal.start(verb, *me)
    assert first.ends() == 1
    assert "SessionTakenOver" in first.output
    assert "--as NAME" in first.output
    second.says(says)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("mqtt-agent too", ["tools"]),
        ("mqtt-agent a", ["agents", "answer", "acl", "audit", "a2a"]),
        ("mqtt-agent acl ch", ["check"]),
        ("mqtt-agent call --name", ["--namespace"]),
    ],
)
def test_tab_completes_verbs_and_options(terminal: Terminal, typed: str, completed: list[str]) -> None:
    words: dict[str, Any] = {
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
        "_MQTT_AGENT_COMPLETE": "complete_bash",
    }
    assert set(completed) <= set(terminal.inside(**words).out.split())
