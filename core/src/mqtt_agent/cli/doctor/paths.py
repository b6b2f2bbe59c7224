"""The paths on which a client, a tool server and an agent send and receive, each with a message to try it by.

The rights are those of "What the broker must allow" in docs/wire-format.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from mqtt_agent.transport import PublishProperties
from mqtt_agent.wire import Cancel, Control, Query, Topics, encode, new_call_id, new_task_id

__all__ = ["ROLES", "Names", "Path"]


@dataclass(frozen=True)
class Names:
    """The names with which the rights are tried.

    Attributes:
        me: The name whose rights are tried.
        tool: The tool that is called or served.
        server: The tool server of that tool, which is asked about calls.
        other: A made-up name, for the client or agent at the other end.
        in_use: The names of agents, servers and tools that are online. Nothing is published in their place.
    """

    me: str
    tool: str
    server: str
    other: str
    in_use: Collection[str]


@dataclass(frozen=True)
class Path:
    """One way of a message.

    Attributes:
        topic: The topic to which a message is published to try the path.
        without: What does not work without the right.
        filter: The topic filter to subscribe to; None when the role only publishes.
        publishes: Whether the role must be allowed to publish.
        payload: The message to publish. An empty message removes nothing, because nothing is retained there.
        properties: The MQTT properties of the message.
        silent: Whether no message may be published to try the path, because a living endpoint would get it.
    """

    topic: str
    without: str
    filter: str | None = None
    publishes: bool = False
    payload: bytes = b""
    properties: PublishProperties = field(default_factory=PublishProperties)
    silent: bool = False


def client_paths(topics: Topics, names: Names) -> list[Path]:
    """The paths of a tool client."""
    inbox = topics.client_responses(names.me)
    call = PublishProperties(response_topic=inbox, message_expiry=1)
    cancel, query = Cancel(call_id=new_call_id(), client=names.me), _query(names.me)
    return [
        Path(inbox, "no answer arrives", inbox, publishes=True),
        # No server runs this message, because it is not a readable call.
        Path(topics.tool_call(names.tool), "the tool cannot be called", publishes=True, properties=call),
        Path(topics.tool_card(names.other), "tools cannot be listed", topics.all_tool_cards),
        Path(topics.server_card(names.other), "nobody knows which tools are online", topics.all_server_cards),
        Path(
            topics.tool_stream(names.tool, names.other),
            "no partial result arrives",
            f"{topics.tool_stream(names.tool, names.other).rpartition('/')[0]}/+",
        ),
        Path(topics.tool_cancel(names.tool), "calls cannot be canceled", publishes=True, payload=encode(cancel)),
        Path(topics.server_query(names.server), "calls cannot be found again", publishes=True, payload=encode(query)),
    ]


def server_paths(topics: Topics, names: Names) -> list[Path]:
    """The paths of a tool server."""
    replica = f"{names.me}:{names.other}"
    served = names.tool in names.in_use
    call, card = topics.tool_call(names.tool), topics.tool_card(names.tool)
    query = encode(_query(names.other))
    paths = [
        Path(topics.server_card(replica), "nobody finds the server", topics.all_server_cards, publishes=True),
        Path(topics.client_responses(names.other), "no caller gets an answer", publishes=True),
        Path(topics.tool_stream(names.tool, names.other), "no caller gets a partial result", publishes=True),
        Path(
            topics.server_query(replica),
            "calls cannot be found again",
            topics.server_query(replica),
            publishes=True,
            payload=query,
        ),
        Path(topics.tool_cancel(names.tool), "calls cannot be canceled", topics.tool_cancel(names.tool), silent=served),
        Path(card, "nobody finds the tool", card, publishes=not served, silent=served),
    ]
    if not served:  # a member of the share group would take calls away from the servers of the tool
        paths.append(Path(call, "no call arrives", topics.tool_call_shared(names.tool)))
    return paths


def agent_paths(topics: Topics, names: Names) -> list[Path]:
    """The paths of an agent that gives and executes tasks."""
    me, other = names.me, names.other
    taken = me in names.in_use
    control = encode(Control(task_id=new_task_id(), action="get", sender=other))
    asked = encode(Control(task_id=new_task_id(), action="get", sender=me))
    card, status, result, events = (
        topics.agent_card(me),
        topics.agent_status(me),
        topics.task_result(other),
        topics.task_events(other),
    )
    return [
        Path(card, "no peer finds the agent", topics.all_agent_cards, publishes=not taken, silent=taken),
        Path(status, "no peer knows that it is online", topics.all_agent_statuses, publishes=not taken, silent=taken),
        Path(topics.inbox(me), "no task arrives", topics.inbox(me), silent=taken),
        Path(topics.overview_inbox(me), "no task of some other SDKs arrives", topics.overview_inbox(me), silent=taken),
        Path(
            topics.control(me),
            "tasks cannot be canceled or answered",
            topics.control(me),
            publishes=True,
            payload=control,
        ),
        Path(topics.results(me), "no result arrives", topics.results(me), silent=taken),
        Path(result, "no result of some other SDKs arrives or leaves", result, publishes=True),
        Path(events, "no progress and no question arrives or leaves", events, publishes=True),
        Path(topics.results(other), "no requester gets a result", publishes=True),
        Path(topics.inbox(other), "tasks cannot be given", publishes=True),
        Path(topics.control(other), "tasks cannot be canceled or answered", publishes=True, payload=asked),
    ]


ROLES: dict[str, Callable[[Topics, Names], list[Path]]] = {
    "client": client_paths,
    "server": server_paths,
    "agent": agent_paths,
}
"""The paths of each role."""


def _query(client: str) -> Query:
    return Query(query_id=new_call_id(), call_ids=[], client=client)
