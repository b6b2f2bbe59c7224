"""The base class of all errors, and the errors that belong to no call, task or connection."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AgentIdTaken",
    "InvalidIdentifier",
    "MQTTAgentError",
    "PayloadTooLarge",
    "QueueFull",
    "RosterError",
    "StoreError",
    "ToolNameTaken",
    "WireError",
]


class MQTTAgentError(Exception):
    """The base class of every error that MQTT.Agent raises."""

    _hooks_set: ClassVar[bool] = False

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        if not MQTTAgentError._hooks_set:
            MQTTAgentError._hooks_set = True
            # At a terminal, an error that nobody catches is shown in a few lines; see mqtt_agent.display.uncaught.
            from mqtt_agent.display import set_hooks

            set_hooks(MQTTAgentError)

    def _render_traceback_(self) -> list[str]:
        # IPython calls this. The frames inside MQTT.Agent do not help the user. A hint about the next step helps.
        from mqtt_agent.display import short_traceback

        return short_traceback(self)


class InvalidIdentifier(MQTTAgentError, ValueError):
    """A name of a tool, server, agent, client or task that cannot be one level of an MQTT topic.

    It is raised where the name is given: by a constructor, or by a method that takes a name, before anything is sent.
    Choose a name without ``/``, ``+``, ``#`` and control characters, of at most 255 bytes, that does not begin with
    ``$``.
    """


class WireError(MQTTAgentError, ValueError):
    """Bytes that are not a valid message of this protocol, or a value that JSON or MQTT cannot carry.

    ``decode`` and ``encode`` of ``mqtt_agent.wire`` raise it. Every method that sends the user's values raises it too,
    for example for the arguments of a call or the data of a task, before anything is sent. The message names the place,
    such as ``arguments.rows[3].price``. Pass plain JSON values, dataclasses or pydantic models, without NaN and
    infinity. A topic or an MQTT property that no packet can hold raises this error at once. An unreadable message
    from a peer is logged, and raises no error.
    """


class PayloadTooLarge(MQTTAgentError, ValueError):
    """The message is larger than the broker's Maximum Packet Size. It was not sent.

    Every method that sends a message raises it. Send less, or store the data elsewhere and send a reference to it, or
    raise both the limit of the broker and ``max_packet_size`` of the connections.
    """


class QueueFull(MQTTAgentError):
    """Too many messages or calls wait already. Nothing was sent.

    Publishing raises it when ``max_queued`` messages wait for the broker. A call raises it when ``max_pending`` calls
    wait for their answers. Wait for some of them before sending more, or raise the limit.
    """


class AgentIdTaken(MQTTAgentError):
    """An agent with this id runs already, and the two cannot share the id, so this agent was not started.

    ``agent.start()`` raises it when a pool of processes has the id and this agent has no ``pool=True``, or when a
    single process has the id and this agent has ``pool=True``. The other agent lives, because it has answered: stop it
    first, or choose another agent id.
    """


class ToolNameTaken(MQTTAgentError):
    """A server of another name offers a tool of this name already. A tool name belongs to one server name.

    ``server.start()`` raises it, and then the server is not started. ``await server.add_tool()`` raises it, and then
    the tool is not offered. Give the server a prefix for the names of its tools, with ``prefix=True`` or
    ``prefix="gh."``, or give the tool another name. Or wait until the other server is gone, with
    ``on_conflict="standby"``.

    Attributes:
        tool: The name of the tool.
        server: The name of the server that wants to offer the tool.
        owner: The name of the server that has the name.
    """

    def __init__(self, message: str, *, tool: str = "", server: str = "", owner: str = "") -> None:
        super().__init__(message)
        self.tool: str = tool
        self.server: str = server
        self.owner: str = owner


class StoreError(MQTTAgentError):
    """The task store cannot be read or written.

    Every method of an agent that stores something raises it, for example when the file is damaged or was made by a
    newer version, or when the disk is full. The message says what to do. A damaged file is never overwritten.

    Args:
        permanent: See the attribute.

    Attributes:
        permanent: Whether the same call can never succeed, because the value cannot be stored or the stored task is
            damaged. False for troubles that may pass, such as a full disk or a lock: then an agent tries again.
    """

    def __init__(self, *args: object, permanent: bool = False) -> None:
        super().__init__(*args)
        self.permanent: bool = permanent


class RosterError(MQTTAgentError, ValueError):
    """A roster cannot be read, or a broker's configuration or a token cannot be made from it.

    ``mqtt_agent.identity`` raises it. The message names the file, the line when it is known, what is wrong, and what to
    write instead.
    """
