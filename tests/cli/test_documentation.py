"""The commands of docs/cli.md, as a person types them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from brokers import free_port

from .terminal import Terminal

TEXT = (Path(__file__).parents[2] / "docs/cli.md").read_text()


def test_the_two_minutes_of_the_documentation_work(terminal: Terminal) -> None:
    [program] = re.findall(r"```python\n# weather.py\n(.*?)```", TEXT, re.DOTALL)
    terminal.write("weather.py", program)
    terminal.environment["MQTT_AGENT_BROKER"] = f"mqtt://127.0.0.1:{free_port()}"
    port = terminal.environment["MQTT_AGENT_BROKER"].rpartition(":")[2]
    ran: list[str] = []
    for block in re.findall(r"```sh\n(.*?)```", TEXT.partition("## The verbs")[0], re.DOTALL):
        for line in block.splitlines():
            name, verb, *words = shlex.split(line)
            assert name == "mqtt-agent"
            ran.append(verb)
            if verb == "broker":
                terminal.start(verb, *words, "--port", port).says("the broker runs")
            elif verb in ("serve", "watch"):
                terminal.start(verb, *words).says("serves" if verb == "serve" else "watching")
            else:
                assert terminal.inside(verb, *words).out
    assert ran == ["broker", "serve", "tools", "tools", "call", "watch"]


def test_every_verb_is_documented(terminal: Terminal) -> None:
    listed = terminal.inside("--help").out
    verbs = set(re.findall(r"^│ ([a-z]+) ", listed, re.MULTILINE))
    assert len(verbs) >= 16
    described = TEXT.partition("## The verbs")[2].partition("## The arguments")[0]
    assert {verb for verb in verbs if f"`{verb}" not in described} == set()


def test_every_verb_has_a_help_text(terminal: Terminal) -> None:
    for verb in ("call", "delegate", "serve", "broker", "watch", "console", "metrics", "context"):
        assert "Usage:" in terminal.inside(verb, "--help").out
