"""A client that replaces its own session on purpose, as a member of a pool does at the embedded broker."""

from __future__ import annotations

import logging

import pytest
from brokers import Embedded
from mqtt_agent.transport import Connection


async def test_a_session_that_the_client_replaces_itself_is_no_warning(
    embedded: Embedded, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection(embedded.url, client_id=f"member-{namespace[-6:]}", session_expiry=60)
    await connection.start()
    try:
        with caplog.at_level(logging.INFO, "mqtt_agent"):
            await connection.subscribe(f"$share/members/{namespace}/work", lambda message: None)
    finally:
        await connection.stop()
    assert "a new session begins at" in caplog.text
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
