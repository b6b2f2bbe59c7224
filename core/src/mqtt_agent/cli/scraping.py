"""The verb ``metrics``: what can be seen of a namespace, for Prometheus."""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated

import typer

from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session, verb, while_connected
from mqtt_agent.errors import SubscriptionRefused, TopicNotAuthorized
from mqtt_agent.wire import Topics

__all__ = ["add_to"]

_PORT = 9464


def add_to(app: typer.Typer) -> None:
    """Add the verb ``metrics``."""
    verb(app, "metrics")(metrics)


async def metrics(
    session: Session,
    port: Annotated[int, typer.Option(help="The TCP port; 0 takes a free one.", min=0, max=65535)] = _PORT,
    listen: Annotated[str, typer.Option(help="The address to listen at. Anyone there may read.")] = "127.0.0.1",
) -> None:
    """Show what can be seen of the namespace to Prometheus, until Ctrl-C. Only what the login may read is counted."""
    try:
        from prometheus_client import start_http_server  # only this verb needs the package
    except ImportError:
        raise UsageError("metrics needs the package prometheus-client: pip install 'mqtt-agent[metrics]'") from None
    from mqtt_agent.cli.exposition import Exposition

    place = session.settings.place
    topics = Topics(place.namespace)
    connection = place.connection(f"{session.settings.name or 'metrics'}~{uuid.uuid4().hex[:8]}", session_expiry=0)
    shown = Exposition(topics, lambda: connection.connected)
    await connection.start()
    try:
        for part, filters in shown.filters().items():
            for topic_filter in filters:
                try:
                    await connection.subscribe(topic_filter, shown.take, qos=0, snapshot=part == "cards")
                except (TopicNotAuthorized, SubscriptionRefused) as error:
                    shown.visible[part] = False
                    session.out.note(f"the {part} are not counted: {error}", "red")
        if not any(shown.visible.values()):
            raise UsageError("the login may read nothing of the namespace: 'mqtt-agent doctor' lists its rights")
        try:
            server, _ = start_http_server(port, listen, shown.registry)
        except OSError as error:
            raise UsageError(
                f"port {port} of {listen} cannot be used: {error.strerror}; choose another one with --port"
            ) from error
        try:
            url = f"http://{listen}:{server.server_port}/metrics"
            if session.out.machine:
                session.out.json({"metrics": url})
            else:
                session.out.text(f"Prometheus reads {url}")
            await while_connected(connection, asyncio.Event().wait())
        finally:
            server.shutdown()
            server.server_close()
    finally:
        await connection.stop(end_session=True)
