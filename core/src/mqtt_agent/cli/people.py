"""Who a verb is in the namespace: somebody who only looks, or an agent whose tasks can be found again.

Also the line that a person types at the terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import uuid
from collections.abc import AsyncGenerator

from mqtt_agent.adapting.identity import default_agent_id
from mqtt_agent.agents import Agent, MemoryStore
from mqtt_agent.agents.dialect import AgentDialect
from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store.retrying import StoreRetry
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session
from mqtt_agent.endpoints.listing import all_arrived
from mqtt_agent.wire import DEFAULT_MAX_PAYLOAD, Topics

__all__ = ["looking_at_peers", "read_line", "requester"]

_MAX_PEERS = 10_000


@contextlib.asynccontextmanager
async def looking_at_peers(session: Session) -> AsyncGenerator[tuple[Peers, bool], None]:
    """Follow the agents of the namespace without being one of them: nothing is published about this process.

    Gives the agents, and whether the cards and statuses of all of them have arrived.

    Raises:
        ConnectionLost: The connection is away, and did not come back within 30 s.
    """
    name = session.settings.name or "cli"
    unique = f"{name}~{uuid.uuid4().hex[:8]}"
    client_id = session.settings.client_id or unique
    connection = session.settings.place.connection(client_id, session_expiry=0)
    place, agent_id = session.settings.place, session.settings.name or unique
    scope = Scope(
        agent_id,
        Topics(place.namespace),
        connection,
        MemoryStore(),
        DEFAULT_MAX_PAYLOAD,
        StoreRetry(name),
        place.bound,
        dialect=AgentDialect(place.bound, agent_id),
    )
    peers = Peers(scope, _MAX_PEERS)
    await connection.start()
    try:
        await peers.start()
        yield peers, await all_arrived(peers.complete, connection)
        await peers.stop()
    finally:
        await connection.stop(end_session=True)


def requester(session: Session, *, again: bool = False) -> Agent:
    """An agent that gives tasks; it is not started. Each run of the command line has the same name.

    Args:
        session: The verb's session.
        again: Whether the verb works with a task that was given before, so that no other name will do.

    Raises:
        UsageError: Another process of the command line uses the name now.
    """
    if session.settings.name is not None:
        return session.agent(session.settings.name)
    logging.getLogger("mqtt_agent.adapting.identity").setLevel(logging.ERROR)
    name, lasting = default_agent_id(session.settings.place.namespace)
    if again and not lasting:
        raise UsageError(
            "another mqtt-agent process works with the tasks of the command line now: "
            "answer or cancel there, end that process (its tasks go on), or give each terminal a name with --as NAME"
        )
    return session.agent(name)


async def read_line() -> str:
    """Read a line from the terminal, with its end. An empty text is the end of the input.

    No thread waits for the line where the event loop can do so: such a thread would hold a lock of the standard input
    when Ctrl-C ends the process. A call that blocks the loop would hear only the second Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(sys.stdin.fileno(), readable.set)
    except (NotImplementedError, OSError):  # on Windows, or the input is a file
        return await loop.run_in_executor(None, sys.stdin.readline)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()
