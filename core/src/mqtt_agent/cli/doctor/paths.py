"""The ways of messages that the table of rights allows to each kind of program, each with a message to try it by.

The rights are :data:`mqtt_agent.identity.RIGHTS`, from which brokers are configured too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mqtt_agent.identity.filters import covers, without_share
from mqtt_agent.identity.rights_table import RIGHTS, Right
from mqtt_agent.transport import PublishProperties
from mqtt_agent.wire import Cancel, Control, Query, Topics, encode, new_call_id, new_task_id

__all__ = ["ROLES", "Kind", "Names", "Path", "paths_of"]

ROLES: tuple[str, ...] = ("client", "server", "agent", "auditor", "operator")
"""The kinds of programs whose rights can be tried."""
Kind = Literal["plain", "bound"]
"""Which topics a program uses: plain topics or sender-bound topics. Both kinds need the topics of cards."""


@dataclass(frozen=True)
class Names:
    """The names with which the rights are tried.

    Attributes:
        me: The name whose rights are tried: an agent id, a client's name, or the id of a replica.
        tool: The tool that is called or served.
        peer: The agent to which tasks are given.
        other: A made-up name, for any other program at the other end.
        in_use: The names of agents, servers and tools that are online. Nothing is published in their place.
    """

    me: str
    tool: str
    peer: str
    other: str
    in_use: Collection[str]


@dataclass(frozen=True)
class Path:
    """One way of a message.

    Attributes:
        topic: The topic to which a message is published to try the path.
        why: What the rights on this path are for.
        filter: The topic filter to subscribe to; None when the role only publishes.
        publishes: Whether the role must be allowed to publish.
        payload: The message to publish. An empty message removes nothing, because nothing is retained there.
        properties: The MQTT properties of the message.
        silent: Whether no message may be published to try the path, because a living endpoint would get it.
    """

    topic: str
    why: str
    filter: str | None = None
    publishes: bool = False
    payload: bytes = b""
    properties: PublishProperties = field(default_factory=PublishProperties)
    silent: bool = False


def paths_of(role: str, topics: Topics, names: Names, kind: Kind, *, shares: bool) -> list[Path]:
    """The paths of a program.

    A right to subscribe and a right to publish become one path, when the program itself may publish what it hears.

    Args:
        role: One of :data:`ROLES`.
        topics: The topics of the namespace.
        names: The names in the topics.
        kind: Which topics the program uses.
        shares: Whether the broker has shared subscriptions.
    """
    paths = _Paths(role, topics, names)
    rows = [row for row in RIGHTS if row.part == role and not (row.unshared and shares)]
    return paths.of([row for row in rows if _is_of(row, topics, kind)], shares)


def _is_of(row: Right, topics: Topics, kind: Kind) -> bool:
    if row.plain:
        return kind == "plain"
    example = without_share(row.topic).replace("{ns}", topics.namespace).replace("+", "x")
    for placeholder in ("{self}", "{serves}", "{calls}", "{reads}", "{delegates}", "{name}"):
        example = example.replace(placeholder, "x")
    return kind == "bound" or topics.bound.writer(example) is None


class _Paths:
    def __init__(self, role: str, topics: Topics, names: Names) -> None:
        self._role = role
        self._topics = topics
        self._names = names
        me, other = names.me, names.other
        self._self = f"{me}:{other}" if role == "server" and ":" not in me else me

    def of(self, rows: Sequence[Right], shares: bool) -> list[Path]:
        writes = [row for row in rows if row.action == "publish"]
        made: list[Path] = []
        for row in rows:
            if row.action == "subscribe" and not self._takes_calls_away(row):
                topic_filter = self._filled(row.topic if shares else without_share(row.topic), "+")
                heard = self._heard(writes, without_share(topic_filter))
                if heard is None:
                    topic = self._filled(without_share(row.topic), self._names.other)
                    made.append(self._path(row, topic, topic_filter, publishes=False))
                else:
                    written, topic = heard
                    writes.remove(written)
                    path = self._path(row, topic, topic_filter, publishes=not self._is_living(written))
                    made.append(replace(path, why=f"{written.why}; {row.why}"))
        made += [self._path(row, self._filled(row.topic, self._names.other), None, publishes=True) for row in writes]
        return [path for path in made if path.filter is not None or not path.silent]

    def _heard(self, writes: Sequence[Right], topic_filter: str) -> tuple[Right, str] | None:
        """A right to publish whose messages arrive at a topic filter, with such a topic."""
        for row in writes:
            for name in (self._self, self._names.other):
                topic = self._filled(row.topic, name)
                if covers(topic_filter, topic):
                    return row, topic
        return None

    def _filled(self, topic: str, wild: str) -> str:
        names = self._names
        for placeholder, name in (
            ("{ns}", self._topics.namespace),
            ("{self}", self._self),
            ("{name}", self._self.partition(":")[0]),
            ("{serves}", names.tool),
            ("{calls}", names.tool),
            ("{reads}", "+"),
            ("{delegates}", names.peer),
        ):
            topic = topic.replace(placeholder, name)
        topic = "/".join(wild if level == "+" else level for level in topic.split("/"))
        return topic if wild == "+" else topic.replace("#", f"probe/{names.other}")

    def _path(self, row: Right, topic: str, topic_filter: str | None, *, publishes: bool) -> Path:
        payload, properties = self._message(topic)
        return Path(topic, row.why, topic_filter, publishes, payload, properties, self._is_living(row))

    def _is_living(self, row: Right) -> bool:
        """Whether a message on the topics of a right would get to a living endpoint that has this name or tool."""
        names = self._names
        _, *levels = row.topic.split("/")
        own = "{self}" in levels[:3] and levels[-1] != "{self}"
        own_card = self._role in ("agent", "server") and levels[-1] in ("card", "status")
        taken = names.me in names.in_use or self._self in names.in_use
        return (taken and (own or own_card)) or ("{serves}" in levels and names.tool in names.in_use)

    def _takes_calls_away(self, row: Right) -> bool:
        """Whether a subscription would take calls away from the living servers of the tool."""
        levels = row.topic.split("/")
        return "{serves}" in levels and "call" in levels and self._names.tool in self._names.in_use

    def _message(self, topic: str) -> tuple[bytes, PublishProperties]:
        """A message that no endpoint acts on. It expires before an endpoint that is away can get it."""
        soon, me = PublishProperties(message_expiry=1), self._names.me
        levels = topic[len(self._topics.namespace) + 1 :].split("/")
        if "control" in levels:
            return encode(Control(task_id=new_task_id(), action="get", sender=me)), soon
        if "cancel" in levels:
            return encode(Cancel(call_id=new_call_id(), client=me)), soon
        if "query" in levels:
            return encode(Query(query_id=new_call_id(), call_ids=[], client=me)), soon
        if levels[-1] == "call":
            reply_to = self._topics.client_responses(me)
            return b"", PublishProperties(response_topic=reply_to, message_expiry=1)  # no server can read this call
        return b"", soon
