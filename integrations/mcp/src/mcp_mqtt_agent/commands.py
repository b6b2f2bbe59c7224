"""The verbs ``bridge`` and ``mcp`` of the command line ``mqtt-agent``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from mqtt_agent.agents import Agent
from mqtt_agent.cli.doors import identities_of, parse_header
from mqtt_agent.cli.output import counted
from mqtt_agent.cli.settings import UsageError, usage_error
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.tools import ToolClient

if TYPE_CHECKING:
    from mqtt_agent.adapting.bearers import Identity

__all__ = ["add_bridge", "add_mcp"]


def add_bridge(app: typer.Typer) -> None:
    """Add the verb ``bridge``."""
    verb(app, "bridge")(bridge)


def add_mcp(app: typer.Typer) -> None:
    """Add the verb ``mcp``."""
    verb(app, "mcp")(mcp)


async def bridge(
    session: Session,
    server: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND... | URL", help="The MCP server: a command, or an HTTP URL.")
    ],
    name: Annotated[str, typer.Option("--name", help="The name of the tool server, the same for all its replicas.")],
    prefix: Annotated[
        str | None, typer.Option(help="The text before the names of all tools. Default: the name and a dot.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="'NAME: VALUE'", help="An HTTP header for a URL.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a call may run. Default: no limit.")] = None,
    replica: Annotated[str | None, typer.Option(help="The name of this replica. Default: a new name.")] = None,
    resources: Annotated[bool, typer.Option(help="Whether clients can read resources and prompts.")] = True,
    allow_caller: Annotated[
        list[str] | None,
        typer.Option("--allow-caller", metavar="NAME", help="Serve only this caller, whose name must be proven."),
    ] = None,
) -> int:
    """Offer the tools of an MCP server, which is a command or an HTTP URL, until Ctrl-C."""
    from mcp_mqtt_agent.bridge import Bridge  # imports the MCP SDK, which takes a second

    is_url = server[0].startswith(("http://", "https://"))
    if is_url and len(server) > 1:
        raise UsageError(f"the URL {server[0]} takes no further words: {' '.join(server[1:])}")
    headers = dict(parse_header(each) for each in header or ())
    if headers and not is_url:
        raise UsageError("--header is for an MCP server at an HTTP URL")
    made = Bridge(
        name,
        server[0] if is_url else server,
        headers=headers,
        prefix=prefix,
        timeout=timeout,
        resources=resources,
        allowed_callers=allow_caller or None,
        replica=replica,
        **session.settings.place.as_arguments(),
    )
    try:

        def tell() -> None:
            count = len(made.server.tools)
            session.out.note(f"{name} serves {counted(count, 'tool')}; Ctrl-C stops it")

        await made.run(tell)
    except MQTTAgentError:
        raise
    except ConnectionError as error:
        raise usage_error(error) from error
    return 0


async def mcp(
    session: Session,
    http: Annotated[
        int | None,
        typer.Option(
            "--http", metavar="PORT", help="Serve over HTTP at /mcp. Default: standard input.", min=0, max=65535
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on, with --http.")] = "127.0.0.1",
    bearer_file: Annotated[
        str | None,
        typer.Option("--bearer-file", metavar="FILE", help="The file with the token that each HTTP client must have."),
    ] = None,
    callers: Annotated[
        str | None,
        typer.Option("--callers", metavar="FILE", help='Callers with names and tokens: {"alice": {"bearer": "..."}}.'),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="Another name of this host in Host and Origin headers.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a call may take. Default: no limit.")] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="NAME",
            help="Show only the tools of this tool server: its name, or the id of one replica, NAME:REPLICA.",
        ),
    ] = None,
    agents: Annotated[
        bool, typer.Option("--agents", help="Show the agents too. Their tasks are kept under the name of --as.")
    ] = False,
) -> int:
    """Show the tools of the namespace to MCP clients, such as Claude Desktop and Cursor, as one MCP server."""
    if agents and callers is None and session.settings.name is None:
        raise UsageError("--agents keeps tasks under the name of the MCP client: add --as NAME")
    if http is None:
        if callers is not None or bearer_file is not None:
            raise UsageError("--callers and --bearer-file are for clients over HTTP: add --http PORT")
        await _over_stdio(session, timeout, agents, server or None)
    else:
        name = session.settings.name or f"client-{uuid.uuid4().hex[:8]}"
        identities = identities_of(
            bearer_file, callers, name=name, client_id=session.settings.client_id, host=host, clients="MCP clients"
        )
        await _over_http(session, identities, host, http, allow_host or (), timeout, agents, server or None)
    return 0


def _agent_for(session: Session, agent_id: str, **options: Any) -> Agent:
    """The agent that gives the tasks of an MCP client."""
    from mqtt_agent.adapting.bearers import SPEAKS_FOR_OTHERS

    about: dict[str, Any] = {"description": "Speaks for MCP clients.", "meta": {SPEAKS_FOR_OTHERS: True}}
    return session.agent(agent_id, **about, **options)


async def _over_stdio(session: Session, timeout: float | None, agents: bool, servers: Sequence[str] | None) -> None:
    from mcp_mqtt_agent.face import Face  # imports the MCP SDK, which takes a second
    from mcp_mqtt_agent.stdio import standard_streams

    name = session.settings.name
    async with _agent_for(session, name) if agents and name is not None else session.client() as client:
        face = Face(client, timeout=timeout, servers=servers)
        async with face.live(), standard_streams() as (reading, writing):
            await face.server.run(reading, writing, face.server.create_initialization_options())


async def _over_http(
    session: Session,
    identities: Sequence[Identity],
    host: str,
    port: int,
    allowed: Sequence[str],
    timeout: float | None,
    agents: bool,
    servers: Sequence[str] | None,
) -> None:
    from mcp_mqtt_agent.http_face import HTTPFaces, serve_http

    place = session.settings.place.as_arguments()

    def make_client(identity: Identity) -> ToolClient | Agent:
        own: dict[str, Any] = {"client_id": identity.client_id}
        if identity.credentials is not None:
            own["credentials"] = identity.credentials
        if agents:
            return _agent_for(session, identity.agent_id, **own)
        return ToolClient(identity.agent_id, **{**place, **own})

    try:
        faces = HTTPFaces(identities, make_client, host=host, allowed=allowed, timeout=timeout, servers=servers)
    except ValueError as error:
        raise usage_error(error) from error

    def say(port: int) -> None:
        session.out.note(f"serves MCP clients at http://{host}:{port}/mcp; Ctrl-C stops it")

    try:
        await serve_http(faces, host, port, say)
    except MQTTAgentError:
        raise
    except OSError as error:
        raise usage_error(error) from error
