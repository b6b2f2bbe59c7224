"""What a tool server has besides tools: answers to requests, and contents for the clients that may read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mqtt_agent.aio.lifecycle import Lifecycle
from mqtt_agent.tools.serving.content_files import Owner, Source
from mqtt_agent.tools.serving.contents import Contents
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.tools.serving.requests import Answerer, RequestHandler, Requests
from mqtt_agent.tools.serving.results import SharedContent

__all__ = ["Sharing"]


class Sharing:
    """The part of a tool server that answers requests and keeps contents.

    Attributes:
        server_id: The id of the replica.
    """

    server_id: str
    _lifecycle: Lifecycle
    _contents: Contents
    _presence: Presence
    _requests: Requests
    _answerer: Answerer | None = None

    def answer_requests(
        self,
        handler: RequestHandler,
        capabilities: Mapping[str, Any],
        *,
        instructions: str | None = None,
        allowed_callers: Collection[str] | None = None,
    ) -> None:
        """Answer requests for resources, prompts and completions. Call this before :meth:`start`.

        Args:
            handler: An ``async`` function that gets a :class:`mqtt_agent.tools.ServerRequest` and returns the result of
                its method, as MCP has it. It must only read. :class:`ToolError` chooses the error of the answer. For
                the method ``subscriptions/listen``, the handler returns the parameters, as far as the server tells the
                client of these changes; see :meth:`tell_change`.
            capabilities: What the server card shows, with MCP's names: ``{"resources": {}, "prompts": {},
                "completions": {}}`` or a part of it. Clients ask for changes only where ``listChanged`` or
                ``subscribe`` is true, as in ``{"resources": {"listChanged": True, "subscribe": True}}``.
            instructions: How to use the server, for a language model.
            allowed_callers: The only clients whose requests on sender-bound topics are answered; None means all.

        Raises:
            RuntimeError: The server has started already.
        """
        if self._lifecycle.user is not None:
            raise RuntimeError(f"server {self.server_id} has started already: call answer_requests() before start()")
        self._answerer = Answerer(handler, capabilities, instructions, allowed_callers)

    async def say_unavailable(self, reason: str | None) -> None:
        """Say in the server card why the server does not serve what it has, though it runs; or that it serves again.

        Clients that list tools, resources or prompts then know what their list lacks.

        Args:
            reason: Why, as a short text that everybody may read; None when the server serves again.
        """
        changed, self._presence.unavailable = self._presence.unavailable != reason, reason
        if changed and self._presence.announced:
            await self._presence.announce_server()

    async def tell_change(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Tell the clients that have asked for it that resources or prompts of this server have changed.

        Example:
            >>> await server.tell_change("notifications/resources/list_changed")  # doctest: +SKIP
            >>> await server.tell_change("notifications/resources/updated", {"uri": "note://a"})  # doctest: +SKIP

        Args:
            method: What has changed, as a notification of MCP.
            params: The parameters of the notification.

        Raises:
            RuntimeError: The server is not started.
            WireError: JSON cannot carry the parameters.
        """
        if not self._lifecycle.started:
            raise RuntimeError(f"server {self.server_id} is not started, so no client listens")
        await self._requests.listeners.tell(method, params or {})

    async def share(
        self,
        source: Source,
        client: str,
        *,
        proven: bool = False,
        name: str | None = None,
        mime_type: str | None = None,
    ) -> SharedContent:
        """Keep bytes for a client, outside of a call: for a large resource, or for a large artifact of a task.

        A handler of a tool uses :meth:`ToolContext.share` instead.

        Example:
            >>> shared = await server.share(Path("/data/a.bin"), request.client, proven=request.bound)  # doctest: +SKIP
            >>> {"contents": [{"uri": uri, "text": "", "_meta": {CONTENT_META: shared.uri}}]}  # doctest: +SKIP

        Args:
            source: See :meth:`ToolContext.share`.
            client: The id of the only client that can read the content.
            proven: Whether the client must prove its name, with a sender-bound topic or a signature. Otherwise, anybody
                who knows the URI and may read the inbox of ``client`` can read the content.
            name: See :meth:`ToolContext.share`.
            mime_type: See :meth:`ToolContext.share`.

        Raises:
            RuntimeError: The server is not started.
            ToolError, OSError, TopicNotAuthorized: See :meth:`ToolContext.share`.
        """
        if not self._lifecycle.started:
            raise RuntimeError(f"server {self.server_id} is not started, so no client could read the content")
        return await self._contents.share(source, Owner(client, proven), name, mime_type)
