"""The verb ``console``."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import uuid
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from mqtt_agent.adapting.identity import default_agent_id
from mqtt_agent.agents.store import PostgresStore
from mqtt_agent.cli.console.model import Model
from mqtt_agent.cli.console.writing import Writer
from mqtt_agent.cli.output import Output
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.stores import store_to_read
from mqtt_agent.cli.verbs import Session, verb, while_connected
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.transport import BrokerSettings, Connection
from mqtt_agent.wire import Topics

__all__ = ["add_to", "show_console"]

_ANSWERS_WITHIN = 10.0
_ACTS_WITHIN = 70.0

T = TypeVar("T")


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
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Let the page call tools, and give, answer and cancel tasks.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(help="The store of pools, postgresql://USER@HOST/DATABASE: shows members, and who has what."),
    ] = None,
) -> None:
    """Show the namespace in the browser, live, until Ctrl-C. The login must be allowed to read all of it."""
    place, name = session.settings.place, session.settings.name
    writes, opened = allow_writes, None if store is None else store_to_read(store)
    if opened is not None and not isinstance(opened, PostgresStore):
        raise UsageError("only a pool has members: give --store postgresql://USER@HOST/DATABASE, the store of the pool")
    async with opened or contextlib.nullcontext():
        await show_console(
            session.out, place, name, port, listen=listen, payloads=payloads, allow_writes=writes, store=opened
        )


async def show_console(
    out: Output,
    place: BrokerSettings,
    name: str | None,
    port: int,
    *,
    listen: str = "127.0.0.1",
    payloads: bool = False,
    allow_writes: bool = False,
    store: PostgresStore | None = None,
) -> None:
    """Serve the console until canceled.

    Args:
        out: Where the address of the page is printed.
        place: The broker, the namespace and the login.
        name: The name under which the page calls tools and gives tasks; None takes a name that is the same each time.
        port: The TCP port of the page; 0 takes a free one.
        listen: The address to listen at.
        payloads: Whether arguments, prompts and results are shown.
        allow_writes: Whether the page may call tools, and give, answer and cancel tasks.
        store: The open store of the namespace's pools, whose members are shown.

    Raises:
        UsageError: The port is in use, or ``listen`` names no single address.
        TransportError: The broker cannot be reached, or forbids the whole namespace.
    """
    if listen in ("", "0.0.0.0", "::"):
        raise UsageError(
            "name one address of this machine with --listen: the console checks under which name it is asked"
        )
    topics = Topics(place.namespace)
    if allow_writes and name is None:
        name, _ = default_agent_id(place.namespace, "console")
    connection = place.connection(f"{name or 'console'}~{uuid.uuid4().hex[:8]}", session_expiry=0)
    await connection.start()
    own = name if allow_writes else None
    about = {"broker": str(connection.url), "namespace": topics.namespace, "own": own}
    model = Model(connection, topics, {**about, "payloads": payloads}, payloads=payloads, own=own, store=store)
    writer = Writer(place, own, model) if own is not None else None
    try:
        await _serve(out, connection, listen, port, model, writer)
    finally:
        if writer is not None:
            await writer.stop()
        await connection.stop(end_session=True)


async def _serve(
    out: Output, connection: Connection, listen: str, port: int, model: Model, writer: Writer | None
) -> None:
    from mqtt_agent.cli.console.web import Site, WebServer  # imports http.server, which no other verb needs

    loop = asyncio.get_running_loop()

    def on_loop(coroutine: Coroutine[Any, Any, T], seconds: float = _ANSWERS_WITHIN) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(seconds)

    def leave(page: queue.Queue[str | None]) -> None:
        loop.call_soon_threadsafe(model.leave, page)

    site = Site(
        join=lambda: on_loop(model.join()),
        leave=leave,
        tool=lambda name: on_loop(model.tool(name)),
        item=lambda kind, name: on_loop(model.item(kind, name)),
        act=None if writer is None else lambda action, given: on_loop(writer.act(action, given), _ACTS_WITHIN),
    )
    try:
        web = WebServer(listen, port, site)
    except OSError as error:
        raise UsageError(f"the console cannot listen at {listen}:{port}: {error.strerror}") from error
    with web:
        if out.machine:
            out.json({"console": web.url})
        else:
            out.text(f"the console is at {web.url}")
        following = asyncio.create_task(model.run())
        try:
            if writer is not None:
                try:
                    await writer.start()
                except MQTTAgentError as error:
                    out.note(f"the tasks that an earlier console has given are not followed: {error}", "red")
            await while_connected(connection, following)
        finally:
            following.cancel()
