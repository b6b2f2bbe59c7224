"""The tool client, the call handle and the content, with methods that block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import Never

from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.sync.blocking import Endpoint, Wrapper, parameters_of
from mqtt_agent.sync.loop import Background
from mqtt_agent.tools.calling import client as aio_client
from mqtt_agent.tools.calling import contents as aio_contents
from mqtt_agent.tools.calling import handle as aio_handle
from mqtt_agent.tools.calling.answering import OnQuestion, in_own_thread
from mqtt_agent.tools.calling.changes import ToolChange
from mqtt_agent.tools.calling.listening import ServerChange
from mqtt_agent.tools.lists import Entries, ServerList, ToolList
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Response, StreamMessage, ToolCard

__all__ = ["CallHandle", "Content", "ToolClient"]


class CallHandle(Wrapper[aio_handle.CallHandle]):
    """A call that is under way; the blocking form of :class:`mqtt_agent.CallHandle`."""

    def _repr_html_(self) -> str:
        return self._async._repr_html_()  # pyright: ignore[reportPrivateUsage]

    @property
    def call_id(self) -> str:
        """The id of the call. Submit with the same id again to attach to the same call."""
        return self._async.call_id

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self._async.tool

    @property
    def server(self) -> str | None:
        """The id of the replica that runs or ran the call; None until the replica is known."""
        return self._async.server

    @property
    def bound(self) -> bool:
        """Whether the call was sent on a sender-bound topic."""
        return self._async.bound

    @property
    def attempt(self) -> int:
        """1 for the first attempt. The number grows by 1 each time that the call is sent again to another replica."""
        return self._async.attempt

    @property
    def elapsed_ms(self) -> float | None:
        """How long the handler took, in milliseconds; None until the call is over."""
        return self._async.elapsed_ms

    @property
    def dropped_partials(self) -> int:
        """How many partial results were dropped because they were not read in time."""
        return self._async.dropped_partials

    @property
    def done(self) -> bool:
        """Whether the call has a result or an error."""
        return self._async.done

    @property
    def timed_out(self) -> bool:
        """Whether the timeout of the call has passed. The tool may still run."""
        return self._async.timed_out

    @property
    def response(self) -> Response | None:
        """The whole response message of the server; None until the message arrives."""
        return self._async.response

    @property
    def over(self) -> bool:
        """Whether the call is done and no further partial result can arrive."""
        return self._async.over

    @parameters_of(aio_handle.CallHandle.result)
    def result(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`mqtt_agent.CallHandle.result`."""
        return self._background.run(self._async.result, *args, **kwargs)

    @parameters_of(aio_handle.CallHandle.news)
    def news(self, *args: Any, **kwargs: Any) -> list[Any]:
        """See :meth:`mqtt_agent.CallHandle.news`."""
        return self._background.run(self._async.news, *args, **kwargs)

    @parameters_of(aio_handle.CallHandle.cancel)
    def cancel(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.CallHandle.cancel`."""
        self._background.run(self._async.cancel, *args, **kwargs)

    def partials(self) -> Iterator[Any]:
        """See :meth:`mqtt_agent.CallHandle.partials`."""
        return self._iterate(self._async.partials())


class Content(Wrapper[aio_contents.Content]):
    """A large content that a tool has shared; the blocking form of :class:`mqtt_agent.tools.Content`.

    Iterate over it, or use one of its methods.
    """

    @property
    def uri(self) -> str:
        """The URI of the content."""
        return self._async.uri

    @property
    def server(self) -> str:
        """The id of the replica that keeps the content."""
        return self._async.server

    @property
    def size(self) -> int:
        """The size of the content, in bytes."""
        return self._async.size

    @property
    def sha256(self) -> str:
        """The SHA-256 of the content, in hexadecimal digits."""
        return self._async.sha256

    @property
    def name(self) -> str | None:
        """The name of the content, such as a file name; None without one."""
        return self._async.name

    @property
    def mime_type(self) -> str | None:
        """The MIME type of the content; None when the server has not said it."""
        return self._async.mime_type

    @property
    def keep(self) -> bool:
        """Whether the server keeps the content after it was read to its end."""
        return self._async.keep

    def __iter__(self) -> Iterator[bytes]:
        return self._iterate(self._async.chunks())

    @parameters_of(aio_contents.Content.chunks)
    def chunks(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """See :meth:`mqtt_agent.tools.Content.chunks`."""
        return self._iterate(self._async.chunks(*args, **kwargs))

    @parameters_of(aio_contents.Content.read)
    def read(self, *args: Any, **kwargs: Any) -> bytes:
        """See :meth:`mqtt_agent.tools.Content.read`."""
        return self._background.run(self._async.read, *args, **kwargs)

    @parameters_of(aio_contents.Content.save)
    def save(self, *args: Any, **kwargs: Any) -> Path:
        """See :meth:`mqtt_agent.tools.Content.save`."""
        return self._background.run(self._async.save, *args, **kwargs)

    @parameters_of(aio_contents.Content.release)
    def release(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.tools.Content.release`."""
        self._background.run(self._async.release, *args, **kwargs)


class ToolClient(Endpoint[aio_client.ToolClient]):
    """Calls tools; the blocking form of :class:`mqtt_agent.ToolClient`, with the same arguments."""

    @parameters_of(aio_client.ToolClient.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(aio_client.ToolClient(*args, **kwargs))

    @property
    def agent_id(self) -> str:
        """The name under which the client calls tools."""
        return self._async.agent_id

    @property
    def name(self) -> str:
        """The old name of ``agent_id``."""
        warn_renamed("ToolClient.name", "ToolClient.agent_id")
        return self._async.agent_id

    @property
    def connection(self) -> Connection:
        """The client's connection to the broker."""
        return self._async.connection

    @classmethod
    def around(cls, target: aio_client.ToolClient, background: Background) -> ToolClient:
        """Make a blocking client from an async client that other code starts and stops.

        Args:
            target: The async client.
            background: Access to the loop on which the async client runs.
        """
        client = cls.__new__(cls)
        super(ToolClient, client).__init__(target, background)
        return client

    @parameters_of(aio_client.ToolClient.list_tools)
    def list_tools(self, *args: Any, **kwargs: Any) -> ToolList:
        """See :meth:`mqtt_agent.ToolClient.list_tools`."""
        return self._background.run(self._async.list_tools, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.list_servers)
    def list_servers(self, *args: Any, **kwargs: Any) -> ServerList:
        """See :meth:`mqtt_agent.ToolClient.list_servers`."""
        return self._background.run(self._async.list_servers, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.get_tool)
    def get_tool(self, *args: Any, **kwargs: Any) -> ToolCard | None:
        """See :meth:`mqtt_agent.ToolClient.get_tool`."""
        return self._background.run(self._async.get_tool, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.list_resources)
    def list_resources(self, *args: Any, **kwargs: Any) -> Entries:
        """See :meth:`mqtt_agent.ToolClient.list_resources`."""
        return self._background.run(self._async.list_resources, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.list_resource_templates)
    def list_resource_templates(self, *args: Any, **kwargs: Any) -> Entries:
        """See :meth:`mqtt_agent.ToolClient.list_resource_templates`."""
        return self._background.run(self._async.list_resource_templates, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.read_resource)
    def read_resource(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """See :meth:`mqtt_agent.ToolClient.read_resource`."""
        return self._background.run(self._async.read_resource, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.list_prompts)
    def list_prompts(self, *args: Any, **kwargs: Any) -> Entries:
        """See :meth:`mqtt_agent.ToolClient.list_prompts`."""
        return self._background.run(self._async.list_prompts, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.get_prompt)
    def get_prompt(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """See :meth:`mqtt_agent.ToolClient.get_prompt`."""
        return self._background.run(self._async.get_prompt, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.open_content)
    def open_content(self, *args: Any, **kwargs: Any) -> Content:
        """See :meth:`mqtt_agent.ToolClient.open_content`."""
        return Content(self._background.run(self._async.open_content, *args, **kwargs), self._background)

    @parameters_of(aio_client.ToolClient.request)
    def request(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`mqtt_agent.ToolClient.request`."""
        return self._background.run(self._async.request, *args, **kwargs)

    @parameters_of(aio_client.ToolClient.submit)
    def submit(self, *args: Any, **kwargs: Any) -> CallHandle:
        """See :meth:`mqtt_agent.ToolClient.submit`."""
        if "on_question" in kwargs:
            kwargs["on_question"] = in_own_thread(kwargs["on_question"])
        return CallHandle(self._background.run(self._async.submit, *args, **kwargs), self._background)

    def watch_tools(self) -> Iterator[ToolChange]:
        """See :meth:`mqtt_agent.ToolClient.watch_tools`."""
        return self._watch(self._async.watch_tools)

    @parameters_of(aio_client.ToolClient.watch_changes)
    def watch_changes(self, *args: Any, **kwargs: Any) -> Iterator[ServerChange]:
        """See :meth:`mqtt_agent.ToolClient.watch_changes`."""
        return self._watch(lambda: self._async.watch_changes(*args, **kwargs))

    def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = CALL_TIMEOUT,
        on_partial: Callable[[Any], None] | None = None,
        wait_online: bool = False,
        retry: bool | None = None,
        call_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
        log_level: str | None = None,
        on_log: Callable[[StreamMessage], None] | None = None,
        on_question: OnQuestion | None = None,
        **unknown: Never,
    ) -> Any:
        """See :meth:`mqtt_agent.ToolClient.call`; ``on_partial`` is called in the calling thread, ``on_log`` in the
        background, and a plain ``on_question`` in a thread of its own.
        """
        on_question = in_own_thread(on_question)
        if on_partial is None or unknown:
            return self._background.run(
                self._async.call,
                tool,
                arguments,
                timeout=timeout,
                wait_online=wait_online,
                retry=retry,
                call_id=call_id,
                meta=meta,
                log_level=log_level,
                on_log=on_log,
                on_question=on_question,
                **unknown,
            )
        options: dict[str, Any] = {"wait_online": wait_online, "retry": retry, "call_id": call_id, "meta": meta}
        options |= {"log_level": log_level, "on_log": on_log, "on_question": on_question}
        handle = self.submit(tool, arguments, timeout=timeout, **options)
        try:
            for partial in handle.partials():
                on_partial(partial)
            return handle.result()
        finally:
            if not handle.done:
                handle.cancel("the caller gave up")
