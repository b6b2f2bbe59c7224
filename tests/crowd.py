"""Crowds of agents, and of tool servers and their clients; and how many messages each of them gets.

A crowd runs on a real broker, or on a :class:`SimulatedBroker`. The endpoints are the same, so the counts must be too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from mqtt_agent import Agent, Connection, MemoryStore, ToolClient, ToolServer
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.transport import InboundMessage, PublishProperties
from mqtt_agent.transport.packing import pack_publish

T = TypeVar("T")
Connect = Callable[[str], Connection]

NAMESPACE = "crowd"
PEERS = 5
"""The peers of each agent, and the servers of which each client uses one tool."""
TOOLS = 10
"""The tools of each server."""
REPLICAS = ("a", "b")
AT_ONCE = 25
"""How many endpoints start, stop or look at the same time."""
SERVERS_AT_ONCE = 5
"""How many servers restart at the same time. Of 10,000 clients, each of them has 500, which all get its cards."""
SKILLS = [
    {"id": f"skill-{n}", "name": f"Skill {n}", "description": "Finds and summarizes documents. " * 3, "tags": ["text"]}
    for n in range(3)
]


@dataclass(frozen=True)
class Phase:
    """What some endpoints got from the broker.

    Attributes:
        name: What happened.
        receivers: How many endpoints are counted.
        messages: How many messages they got, together.
        most: How many messages one of them got at most.
        bytes: The size of the packets of all these messages.
        others: How many messages all other endpoints got.
    """

    name: str
    receivers: int
    messages: int
    most: int
    bytes: int
    others: int = 0


class Tally:
    """Counts the messages that the endpoints of a crowd get."""

    def __init__(self) -> None:
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._marker: dict[str, int] = {}
        """The size of the latest marker that each endpoint has sent to itself."""

    def watch(self, connection: Connection) -> None:
        """Count the messages of a connection that is not started yet."""
        subscriber = connection._subscriber
        dispatch = partial(self._count, connection.client_id, subscriber.dispatch)
        subscriber.dispatch = dispatch  # type: ignore[method-assign]

    def _count(self, client_id: str, dispatch: Callable[[InboundMessage], None], message: InboundMessage) -> None:
        size = size_of(message)
        self._messages[client_id] += 1
        self._bytes[client_id] += size
        if _MARKER in message.payload:
            self._marker[client_id] = size
        dispatch(message)

    def without_marker(self, client_id: str) -> None:
        """Do not count the latest marker of an endpoint."""
        self._messages[client_id] -= 1
        self._bytes[client_id] -= self._marker[client_id]

    def count(self, name: str, receivers: Iterable[str], but: Iterable[str] = ()) -> Phase:
        """The counts since the last call of :meth:`take`.

        Args:
            name: What happened.
            receivers: The client ids of the endpoints to count.
            but: Client ids that do not count as others.
        """
        counted = list(receivers)
        others = sum(self._messages.values()) - sum(self._messages[each] for each in {*counted, *but})
        numbers = [self._messages[each] for each in counted]
        size = sum(self._bytes[each] for each in counted)
        return Phase(name, len(counted), sum(numbers), max(numbers), size, others)

    def take(self, name: str, receivers: Iterable[str], but: Iterable[str] = ()) -> Phase:
        """Like :meth:`count`. Then the counts begin with 0 again."""
        phase = self.count(name, receivers, but)
        self._messages.clear()
        self._bytes.clear()
        return phase


_MARKER = MARKER_PREFIX.encode()


def size_of(message: InboundMessage) -> int:
    """The size of the packet of a message, in bytes."""
    properties = PublishProperties(
        response_topic=message.response_topic,
        correlation_data=message.correlation_data,
        content_type=message.content_type,
        message_expiry=message.message_expiry,
        user_properties=message.user_properties,
    )
    return pack_publish(message.topic, message.payload, message.qos, message.retain, properties).size


async def each(items: Iterable[T], work: Callable[[T], Awaitable[Any]], at_once: int = AT_ONCE) -> None:
    """Do the same with all items, with a few of them at the same time."""
    waiting = list(items)[::-1]

    async def run() -> None:
        while waiting:
            await work(waiting.pop())

    await asyncio.gather(*(run() for _ in range(at_once)))


class Crowd:
    """Many endpoints in one process.

    Args:
        connect: Makes the connection of an endpoint, given its client id.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.tally = Tally()
        self._stops: list[Callable[[], Awaitable[None]]] = []

    def _connection(self, client_id: str) -> Connection:
        connection = self._connect(client_id)
        self.tally.watch(connection)
        return connection

    async def agents(self, count: int) -> list[Phase]:
        """Start agents, each of which finds its peers. Then restart one of them."""
        names = [f"agent-{number:05}" for number in range(count)]
        agents = [
            Agent(
                name,
                connection=self._connection(name),
                namespace=NAMESPACE,
                store=MemoryStore(),
                description="Reads and writes reports about the documents of its department.",
                capabilities=["reports", "search"],
                skills=SKILLS,
            )
            for name in names
        ]
        self._stops += [agent.stop for agent in agents]

        async def find_peers(number: int) -> None:
            for step in range(1, PEERS + 1):
                assert await agents[number].peer(names[(number + step) % count]) is not None

        async def settle(agent: Agent) -> None:
            await agent._peers.look_again()
            self.tally.without_marker(agent.agent_id)

        await each(agents, lambda agent: agent.start())
        await each(range(count), find_peers)
        await each(agents, settle)
        start = self.tally.take("start", names)
        await agents[0].stop()
        await agents[0].start()
        await each(agents[1:], settle)
        followers = [names[-step % count] for step in range(1, PEERS + 1)]
        return [start, self.tally.take("restart of one peer", followers, names[:1])]

    async def clients(self, count: int, servers: int) -> list[Phase]:
        """Start tool servers with replicas, and clients that use some of the tools. Then restart the servers."""
        by_replica = [
            [self._server(f"server-{number:04}", replica) for number in range(servers)] for replica in REPLICAS
        ]
        clients = [
            ToolClient(name, connection=self._connection(name), namespace=NAMESPACE)
            for name in (f"client-{number:05}" for number in range(count))
        ]
        names = [client.agent_id for client in clients]
        # Clients stop first: then nobody gets what the servers publish when they stop.
        self._stops = [*(client.stop for client in clients), *self._stops]

        async def find_tools(number: int) -> None:
            await clients[number].start()
            for step in range(PEERS):
                tool = _tool(f"server-{(number + step) % servers:04}", number % TOOLS)
                assert await clients[number].get_tool(tool, timeout=60) is not None  # a slow machine looks once too

        for replicas in by_replica:
            await each(replicas, lambda server: server.start())
        await self._settle(clients=[], servers=[*by_replica[0], *by_replica[1]])
        ids = [server.server_id for replicas in by_replica for server in replicas]
        phases = [self.tally.take("start of the servers", ids)]
        await each(range(count), find_tools)
        await self._settle(clients)
        phases.append(self.tally.take("start", names, ids))
        await _restart(by_replica[0][0])
        await self._settle(clients)
        followers = [names[n] for n in range(count) if (-n) % servers < PEERS]
        phases.append(self.tally.take("restart of one replica", followers, ids))
        for replicas in by_replica:
            await each(replicas, _restart, SERVERS_AT_ONCE)
        await self._settle(clients, [*by_replica[0], *by_replica[1]])
        of_servers = self.tally.count("the same: what the servers get", ids, names)
        return [*phases, self.tally.take("rolling restart of the servers", names, ids), of_servers]

    def _server(self, name: str, replica: str) -> ToolServer:
        connection = self._connection(f"{name}:{replica}")
        server = ToolServer(name, replica=replica, connection=connection, namespace=NAMESPACE)
        for number in range(TOOLS):
            server.add_tool(_tool(name, number), _search)
        self._stops.append(server.stop)
        return server

    async def _settle(self, clients: Sequence[ToolClient], servers: Sequence[ToolServer] = ()) -> None:
        """Wait until all messages have arrived that the broker has for these endpoints now."""

        async def client(client: ToolClient) -> None:
            assert await client._catalog.barrier()
            self.tally.without_marker(client.agent_id)

        async def server(server: ToolServer) -> None:
            assert await server._intake.sees_all()  # a marker is one message more for each server, everywhere

        await each(clients, client)
        await each(servers, server)

    async def stop(self) -> None:
        """Stop all endpoints."""
        await each(self._stops, lambda stop: stop())
        self._stops.clear()


def _tool(server: str, number: int) -> str:
    return f"{server}-tool-{number}"


def _search(question: str, limit: int = 10, newest_first: bool = True) -> list[str]:
    """Search the documents of the department, and return the titles of those that answer the question."""
    return [question] * limit if newest_first else []


async def _restart(server: ToolServer) -> None:
    await server.stop()
    await server.start()
