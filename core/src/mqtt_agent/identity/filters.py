"""Compares topic filters: whether everything that one filter matches is also matched by another one."""

from __future__ import annotations

__all__ = ["covers", "without_share"]


def covers(allowed: str, asked: str, *, plus_takes_hash: bool = False) -> bool:
    """Whether a topic filter covers a topic, or covers everything that another topic filter matches.

    Example:
        >>> covers("a2a/v1/tasks/+/inbox/agent-a", "a2a/v1/tasks/agent-b/inbox/agent-a")
        True
        >>> covers("a2a/v1/agents/+/card", "a2a/v1/#")
        False

    Args:
        allowed: The topic filter of a rule.
        asked: The topic of a message, or the topic filter of a subscription.
        plus_takes_hash: Whether ``+`` in the rule also covers ``#`` in the last level. The brokers that compare level
            by level do so.
    """
    if allowed[:1] in ("+", "#") and asked.startswith("$"):
        return False
    own, other = allowed.split("/"), asked.split("/")
    for place, level in enumerate(own):
        if level == "#":
            return True  # also the level above: "a/#" matches "a"
        if place == len(other):
            return False
        if level == "+":
            if other[place] == "#" and not plus_takes_hash:
                return False
        elif level != other[place]:
            return False
    return len(own) == len(other)


def without_share(topic_filter: str) -> str:
    """The topic filter inside a shared subscription; any other filter as it is.

    Example:
        >>> without_share("$share/mcp-bound-forecast/a2a/v1/mcp/tools/forecast/call/+")
        'a2a/v1/mcp/tools/forecast/call/+'
    """
    if topic_filter.startswith("$share/") and topic_filter.count("/") > 1:
        return topic_filter.split("/", 2)[2]
    return topic_filter
