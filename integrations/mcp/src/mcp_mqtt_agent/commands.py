"""The verb ``bridge`` of the command line ``mqtt-agent``."""

from __future__ import annotations

from typing import Annotated

import typer
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session, verb

from mcp_mqtt_agent.bridge import Bridge

__all__ = ["add_bridge"]


def add_bridge(app: typer.Typer) -> None:
    """Add the verb ``bridge``."""
    verb(app, "bridge")(bridge)


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
) -> int:
    """Offer the tools of an MCP server, which is a command or an HTTP URL, until Ctrl-C."""
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
