"""Listens for what an MCP server tells about changes of its tools, resources and prompts, in both protocols."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import mcp_types as types
from mcp.client.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ServerEvent,
    SubscriptionLost,
    listen,
)
from mcp.shared.exceptions import MCPError
from mqtt_agent.adapting.background import BackgroundTasks
from mqtt_agent.adapting.changes import LISTS, RESOURCE_UPDATED, URIS, listened
from mqtt_agent.adapting.logs import logger_of

from mcp_mqtt_agent.places import Places
from mcp_mqtt_agent.session import Session

__all__ = ["Asker", "OnChange", "Watching", "changes_of"]

logger: logging.Logger = logger_of(__name__)

Asker = tuple[str, bool]
"""The name of a client, and whether it is proven."""
OnChange = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Is told of a change: a notification of MCP and its parameters."""

_LISTED = ("tools", "resources", "prompts")
_AGAIN_AFTER = 0.2
_KEPT = 240.0
"""Seconds for which the changes of a resource are watched after a client has last asked for them."""
_MOST_URIS = 256
_MOST_OF_ONE = 16
"""How many listeners of one client are known. Further ones take the place of the oldest."""
_ANSWERED_WITHIN = 10.0


def changes_of(capabilities: types.ServerCapabilities | None) -> dict[str, Any]:
    """What a server has besides tools, as the capabilities of a server card."""
    offers: dict[str, Any] = {}
    for kind in ("resources", "prompts", "completions"):
        offered = getattr(capabilities, kind, None)
        if offered is not None:
            told = {
                "listChanged": getattr(offered, "list_changed", None),
                "subscribe": getattr(offered, "subscribe", None),
            }
            offers[kind] = {key: True for key, value in told.items() if value}
    return offers


class Watching:
    """The changes of one MCP server that somebody wants to know.

    Args:
        what: What the server is, for the log.
        on_tools: Called when the tools may have changed.
        on_change: Awaited with each change of resources and prompts.
    """

    def __init__(self, what: str, on_tools: Callable[[], None], on_change: OnChange) -> None:
        self._what = what
        self._on_tools = on_tools
        self._on_change = on_change
        self._session: Session | None = None
        self._places: Places[Asker] = Places(_MOST_URIS, lambda asker: asker[1])
        """The resources that clients have asked for."""
        self._asked: dict[Asker, dict[str, tuple[frozenset[str], asyncio.TimerHandle]]] = {}
        """By client and by the client's listener: the resources, and when they are forgotten."""
        self._attempts: dict[str, asyncio.Task[bool]] = {}
        """The subscription to each of these resources at the present connection, which ends with whether it is made."""
        self._streams: dict[str, asyncio.Task[None]] = {}
        """The subscriptions at a server of 2026, each with a stream of its own, so that no change is missed."""
        self._untold: dict[tuple[str, str | None], dict[str, Any]] = {}
        """The changes that are not told yet. A change that happens again meanwhile is told once."""
        self._telling: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks(lambda task, error: logger.warning("a change is not told: %r", error))
        self._returns = False

    # The life of the connection to the server

    def begin(self, session: Session) -> None:
        """Watch a server that is connected now. What clients had asked for at its earlier connection is asked again."""
        self._session = session
        if session.modern:
            self._tasks.start(self._listen(session))
        for uri in self._places.taken():
            self._attempt(session, uri)
        if self._returns:  # everything may have changed meanwhile
            offers = changes_of(session.server_capabilities)
            for kind in ("resources", "prompts"):
                if kind in offers:
                    self.tell(LISTS[f"{kind}ListChanged"], {})
            for uri in self._places.taken():
                self.tell(RESOURCE_UPDATED, {"uri": uri})
        self._returns = True

    async def end(self) -> None:
        """Watch no more, because the connection has ended."""
        self._session = None
        self._attempts.clear()
        self._streams.clear()
        self._untold.clear()
        self._tasks.cancel()
        await self._tasks.wait()

    def stop(self) -> None:
        """Forget what clients have asked for."""
        for listeners in self._asked.values():
            for _, timer in listeners.values():
                timer.cancel()
        self._asked.clear()
        for uri in self._places.taken():
            self._places.drop(uri)

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Tell a change of resources or prompts, in the background."""
        self._untold[method, params.get("uri")] = params
        if self._telling is None or self._telling.done():
            self._telling = self._tasks.start(self._tell_all())

    async def _tell_all(self) -> None:
        while self._untold:
            method, uri = next(iter(self._untold))
            try:
                await self._on_change(method, self._untold.pop((method, uri)))
            except Exception as error:  # the next change may be told
                logger.warning("a change is not told: %r", error)

    def on_message(self, message: types.ServerNotification) -> None:
        """Take a notification of a server of 2025. Those of a server of 2026 come with its streams."""
        if self._session is not None and self._session.modern:
            return
        if isinstance(message, types.ToolListChangedNotification):
            self._on_tools()
        elif isinstance(message, types.ResourceListChangedNotification):
            self.tell(LISTS["resourcesListChanged"], {})
        elif isinstance(message, types.PromptListChangedNotification):
            self.tell(LISTS["promptsListChanged"], {})
        elif isinstance(message, types.ResourceUpdatedNotification) and str(message.params.uri) in self._places:
            self.tell(RESOURCE_UPDATED, {"uri": str(message.params.uri)})

    # What clients ask for

    async def ask(self, session: Session, params: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """Watch what a client asks for, in the place of what the same listener of the client has asked for before.

        Args:
            session: The session with the server.
            params: The parameters of ``subscriptions/listen``.
            asker: The client.

        Returns:
            The parameters, as far as the server tells these changes.
        """
        asked, offers = listened(params), changes_of(session.server_capabilities)
        accepted: dict[str, Any] = {
            key: True
            for key in LISTS
            if key in asked and offers.get(key.removesuffix("ListChanged"), {}).get("listChanged")
        }
        if offers.get("resources", {}).get("subscribe"):
            uris = list(asked.get(URIS, ()))
            self._replace(asker, str(params.get("listener"))[:64], uris)
            watched = await asyncio.gather(*(self._watch(session, uri) for uri in uris))
            if any(watched):
                accepted[URIS] = [uri for uri, is_watched in zip(uris, watched, strict=True) if is_watched]
        return {"notifications": accepted}

    def _replace(self, asker: Asker, listener: str, uris: Iterable[str]) -> None:
        """Share out the places anew, because a listener has asked for other resources than before."""
        listeners, held = self._asked.pop(asker, {}), set[str]()
        before, timer = listeners.pop(listener, (frozenset[str](), None))
        if timer is not None:
            timer.cancel()
        elif len(listeners) >= _MOST_OF_ONE:
            before, timer = listeners.pop(next(iter(listeners)))
            timer.cancel()
        others = {uri for own, _ in listeners.values() for uri in own}
        for uri in before - set(uris) - others:
            if self._places.leave(asker, uri):
                self._leave(uri)
        for uri in uris:
            lost = self._places.take(asker, uri)
            if lost is not None:
                held.add(uri)
                for each in lost:
                    self._leave(each)
        if held:
            later = asyncio.get_running_loop().call_later(_KEPT, self._replace, asker, listener, ())
            listeners[listener] = frozenset(held), later
        if listeners:
            self._asked[asker] = listeners

    async def _watch(self, session: Session, uri: str) -> bool:
        if uri not in self._places:
            return False
        attempt = self._attempts.get(uri) or self._attempt(session, uri)
        await asyncio.wait([attempt])
        return not attempt.cancelled() and attempt.result()

    def _attempt(self, session: Session, uri: str) -> asyncio.Task[bool]:
        attempt = self._attempts[uri] = self._tasks.start(self._subscribe(session, uri))
        return attempt

    async def _subscribe(self, session: Session, uri: str) -> bool:
        """Let the server tell the changes of a resource. Returns whether it does; else a later request asks again."""
        if session.modern:
            told = await self._is_accepted(session, uri)
        else:
            told = await self._request(session, "resources/subscribe", uri)
        if not told and not session.closed and self._attempts.get(uri) is asyncio.current_task():
            self._forget(uri)
        return told

    async def _is_accepted(self, session: Session, uri: str) -> bool:
        accepted = asyncio.Event()
        stream = self._streams[uri] = self._tasks.start(self._stream(session, uri, accepted))
        stream.add_done_callback(lambda _: self._on_stream_over(session, uri, stream))
        waiting = asyncio.ensure_future(accepted.wait())
        try:
            await asyncio.wait([stream, waiting], timeout=_ANSWERED_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return accepted.is_set()

    def _on_stream_over(self, session: Session, uri: str, stream: asyncio.Task[None]) -> None:
        if self._streams.get(uri) is stream and not session.closed:
            self._forget(uri)

    def _leave(self, uri: str) -> None:
        """Stop watching a resource that no client asks for any more."""
        self._forget(uri)
        if self._session is not None and not self._session.modern:
            self._tasks.start(self._request(self._session, "resources/unsubscribe", uri))

    def _forget(self, uri: str) -> None:
        self._attempts.pop(uri, None)
        self._places.drop(uri)
        stream = self._streams.pop(uri, None)
        if stream is not None:
            stream.cancel()

    async def _request(self, session: Session, method: str, uri: str) -> bool:
        try:
            await session.request(method, {"uri": uri})
        except MCPError as error:
            logger.info("MCP server %s refuses %s for %s: %s", self._what, method, uri, error)
            return False
        return True

    # Streams of a server of 2026

    async def _listen(self, session: Session) -> None:
        """Ask for changes of the lists."""
        offered = session.server_capabilities
        told = {kind: bool(getattr(getattr(offered, kind, None), "list_changed", None)) for kind in _LISTED}
        if not any(told.values()):
            return
        while not session.ended.is_set():
            try:
                async with listen(
                    session,
                    tools_list_changed=told["tools"],
                    resources_list_changed=told["resources"],
                    prompts_list_changed=told["prompts"],
                ) as changes:
                    async for change in changes:
                        self._on_event(change)
            except MCPError as error:
                logger.info("MCP server %s does not tell changes of its lists: %s", self._what, error)
                return
            except SubscriptionLost:
                self._on_tools()  # reading the list shows whether the server is there
                for kind in ("resources", "prompts"):
                    if told[kind]:
                        self.tell(LISTS[f"{kind}ListChanged"], {})
            await asyncio.sleep(_AGAIN_AFTER)

    def _on_event(self, change: ServerEvent) -> None:
        if isinstance(change, ResourcesListChanged):
            self.tell(LISTS["resourcesListChanged"], {})
        elif isinstance(change, PromptsListChanged):
            self.tell(LISTS["promptsListChanged"], {})
        else:
            self._on_tools()

    async def _stream(self, session: Session, uri: str, accepted: asyncio.Event) -> None:
        """Ask for the changes of one resource."""
        while not session.ended.is_set():
            try:
                async with listen(session, resource_subscriptions=[uri]) as changes:
                    if not changes.honored.resource_subscriptions:
                        return
                    if accepted.is_set():
                        self.tell(RESOURCE_UPDATED, {"uri": uri})  # the stream was lost for a while
                    accepted.set()
                    async for _ in changes:
                        self.tell(RESOURCE_UPDATED, {"uri": uri})
            except MCPError as error:
                logger.info("MCP server %s does not tell changes of %s: %s", self._what, uri, error)
                return
            except SubscriptionLost:
                pass
            await asyncio.sleep(_AGAIN_AFTER)
