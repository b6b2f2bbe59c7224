"""The verb ``console``."""

from __future__ import annotations

import asyncio
import queue
import uuid
from typing import Annotated, Any

import typer

from mqtt_agent.cli.console.model import Model
from mqtt_agent.cli.output import Output
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.tools import ToolClient
from mqtt_agent.transport import BrokerSettings
from mqtt_agent.wire import Topics

__all__ = ["add_to", "show_console"]

_CALL_TIMEOUT = 60.0
_ANSWERS_WITHIN = 10.0


def add_to(app: typer.Typer) -> None:
    """Add the verb ``console``."""
    verb(app, "console")(console)


async def console(
    session: Session,
    port: Annotated[int, typer.Option(help="The TCP port of the page. Default: a free port.", min=0, max=65535)] = 0,
    listen: Annotated[
        str, typer.Option(help="The address to listen at. Anyone with the token may then look.")
    ] = "127.0.0.1",
    payloads: Annotated[bool, typer.Option("--payloads", help="Also show arguments, prompts and results.")] = False,
    allow_writes: Annotated[bool, typer.Option("--allow-writes", help="Let the page call tools.")] = False,
) -> None:
    """Show the namespace in the browser, live, until Ctrl-C. The login must be allowed to read all of it."""
    place, name = session.settings.place, session.settings.name
    await show_console(session.out, place, name, port, listen=listen, payloads=payloads, allow_writes=allow_writes)


async def show_console(
    out: Output,
    place: BrokerSettings,
    name: str | None,
    port: int,
    *,
    listen: str = "127.0.0.1",
    payloads: bool = False,
    allow_writes: bool = False,
) -> None:
    """Serve the console until canceled.

    Args:
        out: Where the address of the page is printed.
        place: The broker, the namespace and the login.
        name: The name under which the page calls tools; None makes a name.
        port: The TCP port of the page; 0 takes a free one.
        listen: The address to listen at.
        payloads: Whether arguments, prompts and results are shown.
        allow_writes: Whether the page may call tools.

    Raises:
        UsageError: The port is in use, or ``listen`` names no single address.
        TransportError: The broker cannot be reached, or forbids the whole namespace.
    """
    from mqtt_agent.cli.console.web import WebServer  # imports http.server, which no other verb needs

    if listen in ("", "0.0.0.0", "::"):
        raise UsageError(
            "name one address of this machine with --listen: the console checks under which name it is asked"
        )
    topics, loop = Topics(place.namespace), asyncio.get_running_loop()
    connection = place.connection(f"{name or 'console'}~{uuid.uuid4().hex[:8]}", session_expiry=0)
    await connection.start()
    about = {"broker": str(connection.url), "namespace": topics.namespace, "writes": allow_writes}
    model = Model(connection, topics, about, payloads=payloads)
    client = ToolClient(name, **place.as_arguments())
    client.starts_on_use = True

    def on_loop(coroutine: Any, seconds: float) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(seconds)

    def join() -> queue.Queue[str | None]:
        return on_loop(model.join(), _ANSWERS_WITHIN)

    def leave(page: queue.Queue[str | None]) -> None:
        loop.call_soon_threadsafe(model.leave, page)

    def call(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return on_loop(_called(client, tool, arguments), _CALL_TIMEOUT + _ANSWERS_WITHIN)

    try:
        try:
            web = WebServer(
                listen, port, join=join, leave=leave, schema=model.schema, call=call if allow_writes else None
            )
        except OSError as error:
            raise UsageError(f"the console cannot listen at {listen}:{port}: {error.strerror}") from error
        with web:
            if out.machine:
                out.json({"console": web.url})
            else:
                out.text(f"the console is at {web.url}")
            await model.run()
    finally:
        await client.stop()
        await connection.stop(end_session=True)


async def _called(client: ToolClient, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": await client.call(tool, arguments, timeout=_CALL_TIMEOUT)}
    except MQTTAgentError as error:
        return {"error": f"{type(error).__name__}: {error}"}
