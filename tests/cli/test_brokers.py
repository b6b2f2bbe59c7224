"""The verbs ``broker`` and ``context``, and the command without its packages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import Mosquitto, free_port
from support import require

from .terminal import PATIENCE, Terminal


def test_the_broker_runs_until_ctrl_c(terminal: Terminal) -> None:
    port = free_port()
    url = f"mqtt://127.0.0.1:{port}"
    running = terminal.start("broker", "--port", str(port))
    assert f"export MQTT_AGENT_BROKER={url}" in running.says("export")
    assert "no tool is online" in terminal.inside("tools", MQTT_AGENT_BROKER=url).err
    assert running.interrupt() == 130
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_in_use_is_told(terminal: Terminal) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in terminal.inside("broker", "--port", str(port), code=2).err


def test_mosquitto_keeps_the_cards_through_sigterm(terminal: Terminal) -> None:
    require(Mosquitto)
    port = free_port()
    url = f"mqtt://127.0.0.1:{port}"
    command = ("broker", "--mosquitto", "--port", str(port), "--folder", str(terminal.home / "data"))
    running = terminal.start(*command)
    running.says("keeps its data in")
    serving = terminal.start("serve", "weather", MQTT_AGENT_BROKER=url)
    serving.says("serves")
    assert serving.interrupt() == 0
    assert running.signal(signal.SIGTERM) == 130
    terminal.start(*command).says("keeps its data in")
    assert "forecast" in terminal.inside("tools", "--all", MQTT_AGENT_BROKER=url).out


def test_a_context_is_saved_and_used_and_holds_no_secret(terminal: Terminal) -> None:
    url = terminal.environment.pop("MQTT_AGENT_BROKER")
    terminal.start("serve", "weather", "--broker", url).says("serves")
    terminal.inside("context", "add", "lab", "--broker", url, "--as", "me")
    assert "forecast" in terminal.inside("tools").out
    terminal.inside("context", "add", "other", "--broker", "mqtt://127.0.0.1:9")
    terminal.inside("tools", code=3)
    assert "forecast" in terminal.inside("tools", "--context", "lab").out
    terminal.inside("context", "use", "lab")
    assert terminal.inside("context", "list", "--json").lines[0]["use"] == "lab"
    assert "did you mean 'lab'?" in terminal.inside("context", "use", "labb", code=2).err
    assert "is not saved" in terminal.inside("context", "add", "x", "--broker", "mqtt://a:secret@h", code=2).err
    terminal.inside("context", "remove", "lab")
    saved = next((terminal.home / "config").rglob("contexts.toml"))
    assert "secret" not in saved.read_text()
    saved.write_text("not TOML [")
    assert "correct the file or remove it" in terminal.inside("context", "list", code=2).err


def test_a_reader_that_goes_away_is_no_error(terminal: Terminal) -> None:
    terminal.start("serve", "weather").says("serves")
    done = subprocess.run(
        f"{sys.executable} -m mqtt_agent.cli tools --json | head -n 0",
        shell=True,
        env=terminal.environment,
        cwd=terminal.home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="the test hides packages by a path")
def test_without_its_packages_the_command_says_what_to_install(terminal: Terminal, tmp_path: Path) -> None:
    hide = "import importlib.util as u, sys; f = u.find_spec; u.find_spec = lambda n: None if n == 'typer' else f(n)\n"
    run = "sys.argv = ['mqtt-agent', 'tools']; from mqtt_agent.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", hide + run], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2
    assert "pip install 'mqtt-agent[cli]'" in done.stderr
