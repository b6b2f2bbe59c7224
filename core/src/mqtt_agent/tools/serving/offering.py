"""How functions become the tools of a server: the decorator ``@server.tool``, ``add_tool()``, and the tool cards."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar, overload

from mqtt_agent.endpoints.timeouts import checked_seconds
from mqtt_agent.tools.lists import ToolList
from mqtt_agent.tools.serving.execution import ServedTool
from mqtt_agent.tools.serving.function import ToolFunction
from mqtt_agent.version import __version__
from mqtt_agent.wire import FEATURES, ToolAnnotations, ToolCard, Topics, VersionInfo, validate_identifier
from mqtt_agent.wire.messages import checked_card

__all__ = ["Offered", "ToolOffering"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Offered:
    """What :meth:`ToolServer.add_tool` and its like return. Await it to wait until the tool is offered.

    On a server that is not started, there is nothing to wait for.

    Example:
        >>> await server.add_tool("search", search)  # doctest: +SKIP

    Raises:
        ToolNameTaken: A server of another name offers a tool of this name, and ``on_conflict`` is ``raise``. The server
            does not have the tool then.
        TransportError: The broker refuses the tool's topics, or the connection has ended.
    """

    def __init__(self) -> None:
        self._outcome: Future[None] = Future()

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.wrap_future(self._outcome).__await__()

    async def wait(self) -> None:
        """Wait until the tool is offered; the same as ``await`` on the object."""
        await self

    def done(self) -> Offered:
        """Note that there is nothing to wait for."""
        if not self._outcome.done():
            self._outcome.set_result(None)
        return self

    def end(self, error: BaseException | None = None) -> None:
        """Note the outcome."""
        if error is None:
            self.done()
        elif not self._outcome.done():
            self._outcome.set_exception(error)


class ToolOffering(ABC):
    """The half of a tool server that offers functions as tools.

    Args:
        name: The server's name, the same for all its replicas.
        namespace: The prefix of all topics.
        prefix: The text before the names of all tools. True means the server's name and ``_``.

    Attributes:
        name: The server's name, the same for all its replicas.
        namespace: The prefix of all topics, as it was given.
    """

    def __init__(self, name: str, namespace: str, prefix: bool | str = False) -> None:
        self.name: str = validate_identifier(name, "server name")
        # The same form as `prefixed_name` of mqtt_agent.adapting makes: language models take such a name as it is.
        self._prefix = prefix if isinstance(prefix, str) else f"{name}_" if prefix else ""
        self.namespace: str = namespace
        self._topics = Topics(namespace)
        self._cards: dict[str, ToolCard] = {}
        self._served: dict[str, ServedTool] = {}

    @abstractmethod
    def _on_added(self, name: str) -> Offered:
        """A tool was added. A started server announces the tool."""

    @abstractmethod
    def _on_removed(self, name: str) -> Offered:
        """A tool is to be removed. A started server stops taking its calls before it forgets the tool."""

    @abstractmethod
    def _on_replaced(self, name: str) -> Offered:
        """A tool has another handler and another card. A started server publishes the card."""

    def _forget(self, name: str) -> None:
        """Remove a tool that cannot be offered."""
        self._cards.pop(name, None)
        self._served.pop(name, None)

    @property
    def tools(self) -> list[ToolCard]:
        """The cards of the tools that the server offers."""
        return ToolList(card.model_copy(deep=True) for card in self._cards.values())

    @overload
    def tool(self, handler: Handler, /) -> Handler: ...

    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        title: str | None = None,
        read_only: bool | None = None,
        idempotent: bool | None = None,
        destructive: bool | None = None,
        open_world: bool | None = None,
        timeout: float | None = None,
        allowed_callers: Sequence[str] | None = None,
        version: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Callable[[Handler], Handler]: ...

    def tool(self, handler: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Offer the decorated function as a tool. See :meth:`add_tool` for the options.

        The function's name is the tool's name, the docstring is the description, and the schema is made from the
        parameters and their annotations. Use ``Annotated[str, Field(description="...")]`` to describe a parameter.
        An ``async def`` handler must not block the event loop. A plain ``def`` handler runs in a thread, and may block.

        Example:
            >>> @server.tool  # doctest: +SKIP
            ... async def forecast(city: str, days: int = 3) -> dict:
            ...     "Weather forecast for a city."
            >>> @server.tool(name="forecast-v2", read_only=True)  # doctest: +SKIP
            ... def forecast_2(city: str) -> dict: ...
        """
        if isinstance(handler, str):
            raise TypeError(f"write @server.tool(name={handler!r}): the name is a keyword")

        def offer(function: Callable[..., Any]) -> Callable[..., Any]:
            chosen = options.pop("name", None) or getattr(function, "__name__", type(function).__name__)
            if chosen == "<lambda>":
                raise ValueError("a lambda has no name for its tool: pass name=, as in server.tool(name='add')(...)")
            self.add_tool(chosen, function, **options)
            return function

        return offer if handler is None else offer(handler)

    def add_tool(
        self,
        name: str,
        handler: Callable[..., Any],
        *,
        description: str | None = None,
        input_schema: Mapping[str, Any] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        title: str | None = None,
        read_only: bool | None = None,
        idempotent: bool | None = None,
        destructive: bool | None = None,
        open_world: bool | None = None,
        timeout: float | None = None,
        allowed_callers: Sequence[str] | None = None,
        version: str | None = None,
        meta: dict[str, Any] | None = None,
        validate: bool = True,
        whole_arguments: bool = False,
        icons: Sequence[Mapping[str, Any]] | None = None,
        mcp_name: str | None = None,
        task_support: str | None = None,
    ) -> Offered:
        """Offer a function as a tool. A started server announces the tool at once.

        Args:
            name: The tool's name, unique in the namespace. The server's ``prefix`` is put before the name.
            handler: An ``async def`` function, or a ``def`` function, which runs in a thread. A parameter annotated
                with :class:`ToolContext` gets the call's context. The result must have a JSON form.
            description: For the person or the model that chooses a tool. None means the handler's docstring.
            input_schema: JSON Schema of the arguments. None makes the schema from the handler's parameters. With a
                schema of your own, the handler gets the arguments as keywords. There is one exception: a handler with
                exactly one parameter without a default (not counting the context), whose name is no property of the
                schema, gets all arguments as one dict in that parameter. A call cannot set a parameter that the schema
                does not show.
            output_schema: JSON Schema of the result. A result that does not fit is an error for the caller. None makes
                a schema when the handler is annotated to return a pydantic model, a dataclass or a TypedDict; such
                results are not checked.
            title: A name for people.
            read_only: The tool changes nothing. A lost call is sent again.
            idempotent: To run a call twice has the same effect as to run it once. A lost call is sent again.
            destructive: The tool may delete or overwrite something.
            open_world: The tool reaches systems outside its server, for example the web.
            timeout: Seconds after which a running handler is canceled; None means no limit.
            allowed_callers: The agent ids of the intended callers. A call of anybody else on a sender-bound topic is
                answered with ``unauthorized``. A caller on a plain topic chooses its own name, so there the list is a
                hint for people: only the broker's access rules protect the tool, or ``bound="require"``.
            version: The version of the tool.
            meta: Further JSON data for the card.
            validate: Whether to check the arguments of each call against ``input_schema``. With False, the handler
                checks the arguments itself, and raises :class:`mqtt_agent.errors.InvalidArguments` for wrong ones. The
                schemas are then passed on as they are, also when they are not valid JSON Schema.
            whole_arguments: Whether the handler gets all arguments as one dict in its first parameter, whatever the
                names of the arguments are. This needs an ``input_schema``.
            icons: Icons for the card, in MCP's form, such as ``[{"src": "https://weather.example/icon.png"}]``.
            mcp_name: The tool's name at its MCP server, for a bridge that offers the tool under another name.
            task_support: Whether the tool can run as an MCP task: ``forbidden``, ``optional`` or ``required``.

        Returns:
            An object to await on a started server: ``await server.add_tool(...)`` waits until the tool is offered, and
            raises :class:`ToolNameTaken` when a server of another name offers a tool of this name. If nobody awaits the
            object, such a failure is in the log only.

        Raises:
            InvalidIdentifier: The name cannot be used in topics.
            TypeError: The handler's parameters cannot be made into a schema.
            ValueError: The server offers a tool of this name already, or a schema is not valid.
            WireError: JSON cannot carry a value of the card, or the card is larger than clients read (256 KiB).
        """
        name = validate_identifier(self._prefix + name, "tool name")
        if name in self._cards:
            raise ValueError(f"server {self.name!r} offers a tool {name!r} already: choose another name")
        self._make(
            name,
            handler,
            description=description,
            input_schema=input_schema,
            output_schema=output_schema,
            title=title,
            read_only=read_only,
            idempotent=idempotent,
            destructive=destructive,
            open_world=open_world,
            timeout=timeout,
            allowed_callers=allowed_callers,
            version=version,
            meta=meta,
            validate=validate,
            whole_arguments=whole_arguments,
            icons=icons,
            mcp_name=mcp_name,
            task_support=task_support,
        )
        return self._on_added(name)

    def _make(
        self,
        name: str,
        handler: Callable[..., Any],
        *,
        description: str | None = None,
        input_schema: Mapping[str, Any] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        title: str | None = None,
        read_only: bool | None = None,
        idempotent: bool | None = None,
        destructive: bool | None = None,
        open_world: bool | None = None,
        timeout: float | None = None,
        allowed_callers: Sequence[str] | None = None,
        version: str | None = None,
        meta: dict[str, Any] | None = None,
        validate: bool = True,
        whole_arguments: bool = False,
        icons: Sequence[Mapping[str, Any]] | None = None,
        mcp_name: str | None = None,
        task_support: str | None = None,
    ) -> None:
        """Make a tool and its card; see :meth:`add_tool`."""
        function = ToolFunction(name, handler, input_schema, output_schema, validate, whole_arguments)
        hints = ToolAnnotations(
            title=title,
            readOnlyHint=read_only,
            idempotentHint=idempotent,
            destructiveHint=destructive,
            openWorldHint=open_world,
        )
        card = ToolCard(
            tool=name,
            server=self.name,
            namespace=self.namespace,
            description=description if description is not None else inspect.getdoc(handler) or "",
            input_schema=function.input_schema,
            output_schema=function.output_schema,
            supports_streaming=function.wants_context,
            allowed_callers=list(allowed_callers) if allowed_callers is not None else None,
            version_info=VersionInfo(sdk=__version__, tool=version),
            title=title,
            annotations=hints if hints != ToolAnnotations() else None,
            features=list(FEATURES),
            icons=None if icons is None else [dict(icon) for icon in icons],
            meta=meta,
            mcp_name=mcp_name,
            task_support=task_support,
        )
        self._cards[name] = checked_card(card, f"the card of tool {name}")
        self._served[name] = ServedTool(
            function,
            checked_seconds(timeout),
            partial(self._topics.tool_stream, name),
            frozenset(allowed_callers) if allowed_callers is not None else None,
            repeatable=card.idempotent,
        )

    def remove_tool(self, name: str) -> Offered:
        """Stop offering a tool. A started server takes no new calls of the tool, and finishes the calls that it has.

        The tool's card is removed from the broker, unless another online server offers the tool.

        Args:
            name: The name that was given to :meth:`add_tool`. The server's ``prefix`` is put before the name.

        Returns:
            An object to await on a started server: ``await server.remove_tool(...)`` waits until the tool is no longer
            offered. Add a tool of the same name only after that, or use :meth:`replace_tool`.

        Raises:
            ValueError: The server has no such tool.
        """
        return self._on_removed(self._own_name(name))

    def replace_tool(self, name: str, handler: Callable[..., Any], **options: Any) -> Offered:
        """Offer another function under the name of a tool, without a moment in which the tool is not offered.

        Calls that have begun end with the earlier function.

        Args:
            name: The name that was given to :meth:`add_tool`.
            handler: The new function.
            options: The options of :meth:`add_tool`. Nothing is taken over from the earlier tool.

        Returns:
            An object to await on a started server: it waits until the tool's new card is published.

        Raises:
            ValueError: The server has no such tool, or a schema is not valid. The earlier tool stays.
            TypeError, WireError: See :meth:`add_tool`. The earlier tool stays.
        """
        full = self._own_name(name)
        earlier = self._cards.pop(full), self._served.pop(full)
        replaced = False
        try:
            self._make(full, handler, **options)
            replaced = True
        finally:
            if not replaced:
                self._cards[full], self._served[full] = earlier
        return self._on_replaced(full)

    def _own_name(self, name: str) -> str:
        if self._prefix + name not in self._cards:
            raise ValueError(f"server {self.name!r} offers no tool {self._prefix + name!r}")
        return self._prefix + name
