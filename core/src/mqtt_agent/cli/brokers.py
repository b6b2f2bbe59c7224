"""The verb ``broker``: a broker for development, in the foreground."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_state_path

from mqtt_agent.cli.console import show_console
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.errors import BrokerUnreachable
from mqtt_agent.transport import BrokerSettings, EmbeddedBroker
from mqtt_agent.wire import DEFAULT_NAMESPACE

__all__ = ["add_to"]

_PORT = 1883
_TRIED = 100
_STARTED_WITHIN = 20.0  # seconds


def add_to(app: typer.Typer) -> None:
    """Add the verb ``broker``."""
    verb(app, "broker", shared=False)(broker)


async def broker(
    session: Session,
    port: Annotated[
        int | None, typer.Option(help="The TCP port. Default: 1883, or the next free port.", min=1, max=65535)
    ] = None,
    mosquitto: Annotated[
        bool,
        typer.Option("--mosquitto", help="Start the installed Mosquitto. It keeps sessions and cards in a folder."),
    ] = False,
    ui: Annotated[bool, typer.Option("--ui", help="Also open the console: a live page for the browser.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="The folder in which Mosquitto keeps its data. Default: in your state folder.")
    ] = None,
) -> int:
    """Start a broker for development, and run it until Ctrl-C. It listens on this machine only."""
    chosen = _free_port(port)
    if port is None and chosen != _PORT:
        session.out.note(f"port {_PORT} is in use, so the broker gets port {chosen}")
    if mosquitto or folder is not None:
        return await _run_mosquitto(session, chosen, folder, ui)
    with EmbeddedBroker(chosen) as embedded:
        _say(session, embedded.url, "keeps everything in memory")
        await (_console(session, embedded.url) if ui else asyncio.Event().wait())
    return 0


def _say(session: Session, url: str, keeps: str) -> None:
    if session.out.machine:
        session.out.json({"url": url})
        return
    session.out.text(f"the broker runs at {url}, and {keeps}; Ctrl-C stops it")
    default = url in ("mqtt://127.0.0.1:1883", "mqtt://localhost:1883")
    if not default:
        session.out.text(f"in other terminals: export MQTT_AGENT_BROKER={url}")


async def _console(session: Session, url: str) -> None:
    namespace = os.environ.get("MQTT_AGENT_NAMESPACE") or DEFAULT_NAMESPACE
    place = BrokerSettings(url, namespace)
    await show_console(session.out, place, None, 0, payloads=True, allow_writes=True)


def _free_port(wanted: int | None) -> int:
    """The wanted port, or the first free one from 1883 on.

    Raises:
        UsageError: No port is free.
    """
    for port in [wanted] if wanted is not None else range(_PORT, _PORT + _TRIED):
        with socket.socket() as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    which = f"port {wanted} is" if wanted is not None else f"the ports {_PORT} to {_PORT + _TRIED - 1} are"
    raise UsageError(f"{which} in use: choose another one with --port, or stop the program that listens there")


async def _run_mosquitto(session: Session, port: int, folder: Path | None, ui: bool) -> int:
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        raise UsageError("Mosquitto is not installed: install the package mosquitto, or leave --mosquitto out")
    folder = (folder or user_state_path("mqtt-agent", appauthor=False) / "mosquitto").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mqtt-agent-") as temporary:
        config, log = _written(Path(temporary), port, folder)
        # In a session of its own, so that Ctrl-C reaches this process alone, which then ends the broker in order.
        process = await asyncio.create_subprocess_exec(
            program, "-c", str(config), stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        try:
            await _until_it_listens(process, port, log)
            _say(session, f"mqtt://127.0.0.1:{port}", f"keeps its data in {folder}")
            console = asyncio.create_task(_console(session, f"mqtt://127.0.0.1:{port}")) if ui else None
            try:
                code = await process.wait()
            finally:
                if console is not None:
                    console.cancel()
            raise BrokerUnreachable(f"Mosquitto has ended with exit code {code}: {_last_line(log)}")
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def _written(temporary: Path, port: int, folder: Path) -> tuple[Path, Path]:
    """Write Mosquitto's configuration, and return its path and the path of the log."""
    config, log = temporary / "mosquitto.conf", temporary / "log"
    lines = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 60",
        "max_queued_messages 10000",
        f"log_dest file {log}",
    ]
    if sys.platform != "win32" and os.getuid() == 0:
        lines.append("user root")  # otherwise Mosquitto gives up root's rights, and cannot write into the folder
    config.write_text("\n".join(lines) + "\n")
    return config, log


async def _until_it_listens(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + _STARTED_WITHIN
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            break
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise BrokerUnreachable(f"Mosquitto did not start: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it wrote nothing to its log"
