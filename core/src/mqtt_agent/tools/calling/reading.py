"""What a tool client gets from servers besides the results of calls: resources, prompts, changes, and contents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mqtt_agent.endpoints.listing import LISTED_WITHIN
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.tools.calling.contents import Content, ContentSource, uri_of
from mqtt_agent.tools.calling.listening import Listening, ServerChanges
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.tools.calling.requests import Requests
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.tools.lists import Entries
from mqtt_agent.tools.questions import as_object

__all__ = ["Reading"]


class Reading:
    """The part of a tool client that reads resources, prompts and contents."""

    _scope: Scope
    _catalog: LiveCatalog
    _queries: Queries
    _requests: Requests
    _listening: Listening

    @abstractmethod
    def _check_started(self) -> None:
        """Check that the client is started.

        Raises:
            ConnectionLost: The client is not started.
        """

    @abstractmethod
    async def _ensure_started(self) -> None:
        """Start the client if it starts on its first use.

        Raises:
            ConnectionLost: The client is not started.
        """

    @abstractmethod
    async def _all_cards(self, timeout: float | None = LISTED_WITHIN) -> list[str]:
        """Wait until all cards have arrived.

        Args:
            timeout: Seconds to wait; None for no limit.

        Returns:
            What is missing, for people.

        Raises:
            ConnectionLost: The connection is away, and did not come back in time.
        """

    async def open_content(
        self, content: str | Mapping[str, Any], *, timeout: float | None = CALL_TIMEOUT, keep: bool = False
    ) -> Content:
        """Open a content that a tool has shared with this client, because it is too large for one message.

        Example:
            >>> content = await client.open_content(await client.call("export", {"year": 2025}))  # doctest: +SKIP
            >>> await content.save("2025.csv")  # doctest: +SKIP

        Args:
            content: The tool's result, with its ``uri``; or the URI itself, which begins with ``mqtt-agent:content/``.
            timeout: Seconds that each chunk may take, also while the server or the connection is away; None means no
                limit.
            keep: Whether the server keeps the content after it was read to its end. Otherwise the server drops it then.

        Raises:
            ContentLost: The server does not keep the content for this client.
            ToolUnavailable: The server is offline, and did not come back in time.
            CallTimeout: No answer arrived in time.
            ValueError: This refers to no content.
        """
        await self._ensure_started()
        source = ContentSource(self._scope, self._catalog, self._queries, uri_of(content), timeout)
        self._catalog.follow_server(source.server, source)
        await self._catalog.complete()
        return Content(source, await source.chunk(0, 0), keep)

    async def list_resources(
        self, server: str | Collection[str] | None = None, timeout: float | None = CALL_TIMEOUT
    ) -> Entries:
        """The resources of the servers that have some, such as bridges to MCP servers.

        A server that was lost may be about to come back, and is waited for until 5 s after its loss.

        Args:
            server: Only those of this server: its name, which its replicas share. Or only those of several servers.
            timeout: Seconds that each answer may take; None means no limit.

        Returns:
            MCP's descriptions, such as ``{"uri": "file:///a", "name": "a"}``, each with its ``server``. When some of
            several servers were lost, are not online or have not answered, the list's ``incomplete`` says which and
            why, and ``missing`` has their names. Look there before you believe an empty list. Servers that do not let
            this client read are left out.

        Raises:
            ToolUnavailable: The only server that was asked for has no resources, or is offline.
            ConnectionLost: The connection is away, and did not come back within 30 s.
            CallError: The only server that was asked for answers with an error, or not in time.
        """
        return await self._list("resources/list", "resources", server, timeout)

    async def list_resource_templates(
        self, server: str | Collection[str] | None = None, timeout: float | None = CALL_TIMEOUT
    ) -> Entries:
        """The templates of resources; see :meth:`list_resources`."""
        return await self._list("resources/templates/list", "resourceTemplates", server, timeout)

    async def read_resource(self, server: str, uri: str, timeout: float | None = CALL_TIMEOUT) -> list[dict[str, Any]]:
        """Read a resource.

        Args:
            server: The name of the server that has the resource.
            uri: The resource's URI.
            timeout: Seconds that the answer may take; None means no limit.

        Returns:
            The contents, as MCP has them: each with ``uri``, perhaps ``mimeType``, and ``text`` or ``blob`` (Base64).

        Raises:
            ToolUnavailable, CallError: See :meth:`list_resources`.
        """
        result = await self.request(server, "resources/read", {"uri": uri}, timeout)
        return list((as_object(result) or {}).get("contents") or ())

    async def list_prompts(
        self, server: str | Collection[str] | None = None, timeout: float | None = CALL_TIMEOUT
    ) -> Entries:
        """The prompts of the servers, as MCP describes them, each with its ``server``; see :meth:`list_resources`."""
        return await self._list("prompts/list", "prompts", server, timeout)

    async def get_prompt(
        self,
        server: str,
        name: str,
        arguments: Mapping[str, str] | None = None,
        timeout: float | None = CALL_TIMEOUT,
    ) -> dict[str, Any]:
        """Get a prompt.

        Args:
            server: The name of the server that has the prompt.
            name: The prompt's name.
            arguments: The prompt's arguments.
            timeout: Seconds that the answer may take; None means no limit.

        Returns:
            MCP's result: ``messages``, and perhaps a ``description``.

        Raises:
            ToolUnavailable, CallError: See :meth:`list_resources`.
        """
        params: dict[str, Any] = {"name": name} | ({} if arguments is None else {"arguments": dict(arguments)})
        result = await self.request(server, "prompts/get", params, timeout)
        return as_object(result) or {}

    def watch_changes(self, resources: Mapping[str, Iterable[str]] | None = None) -> ServerChanges:
        """Iterate over the changes of resources and prompts from now on, of all servers that tell them.

        A change says that a list or a resource is to be read again. When the client or a server was away, changes of
        that time may be missing.

        Example:
            >>> changes = client.watch_changes({"notes": ["note://first"]})  # doctest: +SKIP
            >>> async for change in changes:  # doctest: +SKIP
            ...     print(change.server, change.method, change.params)

        Args:
            resources: The URIs of the resources whose changes are told too, by the names of their servers. The method
                ``subscribe(server, uri)`` of the iterator adds another one.
        """
        self._check_started()
        return self._listening.watch(resources or {})

    async def request(
        self, server: str, method: str, params: Mapping[str, Any] | None = None, timeout: float | None = CALL_TIMEOUT
    ) -> Any:
        """Ask a server for the result of a method of MCP, such as ``completion/complete``.

        Args:
            server: The server's name, which its replicas share.
            method: The method. It must only read: a request whose replica is lost goes to another one.
            params: The parameters of the method.
            timeout: Seconds that the answer may take; None means no limit.

        Raises:
            ToolUnavailable, CallError: See :meth:`list_resources`.
            WireError: JSON cannot carry the parameters.
        """
        await self._all_cards(timeout)
        return await self._requests.ask(server, method, params or {}, timeout)

    async def _list(
        self, method: str, key: str, server: str | Collection[str] | None, timeout: float | None
    ) -> Entries:
        incomplete = await self._all_cards(LISTED_WITHIN if timeout is None else min(timeout, LISTED_WITHIN))
        entries = await self._requests.listing(method, key, server, timeout)
        entries.incomplete[:0] = incomplete
        return entries
