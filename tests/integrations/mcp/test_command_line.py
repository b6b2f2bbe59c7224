"""The verb ``bridge``, as a person types it."""

from __future__ import annotations

import sys

import psutil
from cli.terminal import Terminal

from .conftest import OddServer


def test_a_server_is_bridged_called_and_ended_with_ctrl_c(terminal: Terminal, odd: OddServer) -> None:
    odd.offer("echo")
    bridge = terminal.start("bridge", "--name", "odd", "--", *odd.command)
    bridge.says("odd serves 1 tool;")
    assert terminal.run("call", "odd.echo", "a=1").out == '{"a": 1}\n'
    assert bridge.interrupt() == 130


def test_nothing_is_left_when_the_bridge_is_killed(terminal: Terminal, odd: OddServer) -> None:
    odd.offer("family")
    bridge = terminal.start("bridge", "--name", "odd", "--", *odd.command)
    bridge.says("odd serves")
    family = [psutil.Process(int(pid)) for pid in terminal.run("call", "odd.family").out.split()]
    bridge.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def test_a_wrong_command_line_says_what_to_do(terminal: Terminal) -> None:
    said = terminal.inside("bridge", "--name", "x", "--", "no-such-command", code=2).err
    assert "no-such-command does not answer" in said
    said = terminal.inside("bridge", "--name", "x", "--header", "x", "http://localhost:1", code=2).err
    assert "--header takes" in said
    said = terminal.inside("bridge", "--name", "x", "--header", "a: b", "--", sys.executable, code=2).err
    assert "HTTP URL" in said
