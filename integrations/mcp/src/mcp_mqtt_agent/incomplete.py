"""Says to an MCP client what a list lacks, because servers were lost or do not answer.

A client believes an empty list, and may never ask again. So a list that would be empty is an error instead, when it
lacks what the client may count on. Anybody who may write cards can say that a server was lost: what a stranger says
about a server that nobody knows is told, and turns no list into an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mqtt_agent.adapting.lacking import AGENT, SERVER, first_few, sentences

__all__ = ["INCOMPLETE", "Lacks", "lacking"]

INCOMPLETE = "mqtt-agent/incomplete"
"""The key in ``_meta`` and in the data of an error."""
_MOST = 10_000


class Lacks:
    """What an MCP client may count on.

    Args:
        servers: The only servers that are shown; None for all servers. Without them, the client may count on what it
            has been shown: a server or an agent of which one of its lists had an entry.
    """

    def __init__(self, servers: Collection[str] | None = None) -> None:
        self.servers: list[str] | None = None if servers is None else sorted(set(servers))
        self._shown: dict[tuple[str, str], None] = {}

    def show(self, names: Iterable[str], form: str = SERVER) -> None:
        """Note that a list has entries of these servers or agents."""
        for name in names:
            if len(self._shown) < _MOST:
                self._shown[form, name] = None

    def _counts(self, name: str, form: str) -> bool:
        return (form == SERVER and self.servers is not None) or (form, name) in self._shown

    def of(
        self,
        what: str,
        entries: Collection[object],
        incomplete: Sequence[str],
        servers: Mapping[str, str],
        agents: Mapping[str, str] | None = None,
    ) -> list[str]:
        """What a list lacks, in up to 20 sentences. What the client may count on comes first.

        Args:
            what: What an error says first.
            entries: The entries of the list.
            incomplete: All that the list lacks.
            servers: The servers that it lacks, each with the reason.
            agents: The agents that it lacks, each with the reason.

        Raises:
            MCPError: The list is empty, and the client would not know what it lacks.
        """
        about = {SERVER: servers, AGENT: agents or {}}
        every = {each for form, missing in about.items() for each in sentences(form, missing)}
        counting = {
            each
            for form, missing in about.items()
            for each in sentences(form, {name: why for name, why in missing.items() if self._counts(name, form)})
        }
        counting.update(each for each in incomplete if each not in every)  # the broker keeps cards back
        said = first_few(incomplete, counting)
        if counting and not entries:
            raise lacking(what, said)
        return said


def lacking(what: str, incomplete: Sequence[str]) -> MCPError:
    """The error for what cannot be found now, or for a list with nothing in it.

    Args:
        what: What is missing.
        incomplete: Why.
    """
    said = first_few(incomplete)
    return MCPError(types.INTERNAL_ERROR, f"{what}: {'; '.join(said)}", {INCOMPLETE: said})
