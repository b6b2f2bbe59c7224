"""What a tool server tells clients of changes of its resources and prompts (ours)."""

from __future__ import annotations

from typing import Any, cast

from mqtt_agent.wire.messages import Message

__all__ = ["LISTEN", "LISTS", "RESOURCE_UPDATED", "URIS", "ServerEvent", "listened"]

LISTEN: str = "subscriptions/listen"
"""The method of the request with which a client asks for changes."""
LISTS: dict[str, str] = {
    "resourcesListChanged": "notifications/resources/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
}
"""The lists whose changes a client can ask for, and the notification of each change, with MCP's names."""
RESOURCE_UPDATED: str = "notifications/resources/updated"
URIS: str = "resourceSubscriptions"
"""The key of the URIs of the resources whose changes a client asks for."""
_MOST_URIS = 1000


class ServerEvent(Message):
    """Tells a client that resources or prompts of a server have changed (ours).

    Attributes:
        server: The id of the replica that tells it.
        method: What has changed, as a notification of MCP such as ``notifications/resources/updated``.
        params: The parameters of the notification, such as the ``uri`` of the resource.
    """

    server: str
    method: str
    params: dict[str, Any] | None = None


def listened(params: object) -> dict[str, Any]:
    """What a request for changes asks for. Everything that is not understood is left out, as in MCP.

    Example:
        >>> listened({"notifications": {"promptsListChanged": True, "resourceSubscriptions": ["a:b"], "x": 1}})
        {'promptsListChanged': True, 'resourceSubscriptions': ['a:b']}
    """
    asked: Any = cast("dict[str, Any]", params).get("notifications") if isinstance(params, dict) else None
    if not isinstance(asked, dict):
        return {}
    fields = cast("dict[str, Any]", asked)
    wanted: dict[str, Any] = {key: True for key in LISTS if fields.get(key) is True}
    uris = fields.get(URIS)
    texts = [each for each in cast("list[Any]", uris) if isinstance(each, str)] if isinstance(uris, list) else []
    return wanted | ({URIS: texts[:_MOST_URIS]} if texts else {})
