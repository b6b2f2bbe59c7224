"""The verbs ``bridge`` and ``mcp`` of the command line ``mqtt-agent``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from mqtt_agent.cli.settings import UsageError, read_secret
from mqtt_agent.cli.verbs import Session, verb

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
) -> int:
    """Offer the tools of an MCP server, which is a command or an HTTP URL, until Ctrl-C."""
    from mcp_mqtt_agent.bridge import Bridge  # imports the MCP SDK, which takes a second

    is_url = server[0].startswith(("http://", "https://"))
    if is_url and len(server) > 1:
        raise UsageError(f"the URL {server[0]} takes no further words: {' '.join(server[1:])}")
    headers = dict(_header(each) for each in header or ())
    if headers and not is_url:
        raise UsageError("--header is for an MCP server at an HTTP URL")
    made = Bridge(
        name,
        server[0] if is_url else server,
        headers=headers,
        prefix=prefix,
        timeout=timeout,
        resources=resources,
        replica=replica,
        **session.settings.place.as_arguments(),
    )
    try:
        await made.run(lambda: session.out.note(f"{name} serves {len(made.server.tools)} tools; Ctrl-C stops it"))
    except ConnectionError as error:
        raise UsageError(str(error)) from error
    return 0


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header takes 'NAME: VALUE', not {text!r}")
    return name.strip(), value.strip()


async def mcp(
    session: Session,
    http: Annotated[
        int | None, typer.Option("--http", metavar="PORT", help="Serve over HTTP at /mcp. Default: standard input.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on, with --http.")] = "127.0.0.1",
    bearer_file: Annotated[
        str | None,
        typer.Option("--bearer-file", metavar="FILE", help="The file with the token that each HTTP client must have."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="Another name of this host in Host and Origin headers.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a call may take. Default: no limit.")] = None,
) -> int:
    """Show the tools of the namespace to MCP clients, such as Claude Desktop and Cursor, as one MCP server."""
    from mcp.server.stdio import stdio_server  # the MCP SDK takes a second to import

    from mcp_mqtt_agent.face import Face
    from mcp_mqtt_agent.http_face import is_loopback, serve_http

    token = None if bearer_file is None else _token(bearer_file)
    if http is not None and token is None and not is_loopback(host):
        raise UsageError(f"other machines can reach {host}, so MCP clients need a token: add --bearer-file FILE")
    async with session.client() as client:
        face = Face(client, timeout=timeout)
        if http is not None:
            session.out.note(f"serves MCP clients at http://{host}:{http}/mcp; Ctrl-C stops it")
            await serve_http(face, host, http, token=token, allowed=allow_host or ())
            return 0
        async with face.live(), stdio_server() as (reading, writing):
            await face.server.run(reading, writing, face.server.create_initialization_options())
    return 0


def _token(file: str) -> str:
    token = read_secret(Path(file))
    if not token:
        raise UsageError(f"the file {file} is empty, and must hold the token")
    return token
