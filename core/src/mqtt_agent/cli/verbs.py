"""Makes a verb of the command line from a function: the options that all verbs share, errors, exit codes, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import get_type_hints

from mqtt_agent.agents import Agent
from mqtt_agent.cli.output import INTERRUPTED, Output
from mqtt_agent.cli.settings import Settings
from mqtt_agent.display.suggestions import did_you_mean
from mqtt_agent.errors import TransportError
from mqtt_agent.tools import ToolClient
from mqtt_agent.transport import Connection

__all__ = ["SHARED", "Session", "group_with_default", "verb", "while_connected"]

_CONNECTION = "Connection"


def _option(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_CONNECTION, **more)


SHARED: dict[str, Any] = {
    "broker": Annotated[
        str | None,
        _option(
            "--broker",
            "-b",
            help="The broker's URL, or several with commas between them. Default: $MQTT_AGENT_BROKER, then localhost.",
        ),
    ],
    "namespace": Annotated[
        str | None,
        _option("--namespace", "-n", help="The prefix of all topics. Default: $MQTT_AGENT_NAMESPACE, then a2a/v1."),
    ],
    "as_": Annotated[str | None, _option("--as", metavar="NAME", help="The name under which this command speaks.")],
    "user": Annotated[str | None, _option("--user", help="The MQTT user name.")],
    "password_file": Annotated[
        str | None,
        _option("--password-file", metavar="FILE", help="The file with the password. Or $MQTT_AGENT_PASSWORD."),
    ],
    "token_file": Annotated[
        str | None, _option("--token-file", metavar="FILE", help="The file with a token (JWT). Or $MQTT_AGENT_TOKEN.")
    ],
    "ca": Annotated[
        str | None, _option("--ca", metavar="FILE", help="The certificates that may have signed the broker's (PEM).")
    ],
    "certificate": Annotated[str | None, _option("--certificate", metavar="FILE", help="The own certificate (PEM).")],
    "key": Annotated[str | None, _option("--key", metavar="FILE", help="The private key of --certificate.")],
    "client_id": Annotated[
        str | None,
        _option(
            "--client-id",
            help="The MQTT client id, for a broker that binds it to the login. Its other connection ends.",
        ),
    ],
    "bound": Annotated[
        str | None,
        _option("--bound", help="Sender-bound topics: prefer (the default), require or off."),
    ],
    "context": Annotated[str | None, _option("--context", help="The saved context to use.")],
    "json": Annotated[bool, typer.Option("--json", help="Print one JSON value in each line, for machines.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show what happens, and the traceback of an error.")],
}
"""The options that every verb has, by the name of the parameter."""


@dataclass(frozen=True)
class Session:
    """What a verb works with.

    Attributes:
        settings: Where to connect, and as whom.
        out: Prints for people or for machines.
    """

    settings: Settings
    out: Output

    def client(self) -> ToolClient:
        """A tool client with the settings of the command line; it is not started."""
        settings = self.settings
        return ToolClient(settings.name, client_id=settings.client_id, **settings.place.as_arguments())

    def agent(self, agent_id: str, **options: Any) -> Agent:
        """An agent with the settings of the command line; it is not started."""
        about: dict[str, Any] = {**self.settings.place.as_arguments(), "client_id": self.settings.client_id, **options}
        return Agent(agent_id, **about)


def group_with_default(name: str) -> type[TyperGroup]:
    """A group of verbs that takes the verb ``name`` when none is named: ``acl ROSTER`` is ``acl write ROSTER``.

    Args:
        name: The verb to take.
    """

    class Group(TyperGroup):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            named = args and (args[0] in self.commands or args[0] in ("-h", "--help") or self._is_typo(args[0]))
            if not named and (args or not self.no_args_is_help):
                args = [name, *args]
            return super().parse_args(ctx, args)

        def _is_typo(self, word: str) -> bool:
            """Whether a word is meant to be a verb, and is neither a verb nor a file."""
            return bool(did_you_mean(word, self.commands)) and not os.path.exists(word)

    return Group


def verb(
    app: typer.Typer, name: str | None = None, *, shared: bool = True, **about: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the decorated function a verb.

    The function's first parameter is the :class:`Session`; its other parameters are the verb's own arguments and
    options. An ``async`` function runs on an event loop. The function may return an exit code.

    Args:
        app: The command line that gets the verb.
        name: The name of the verb; None takes the function's name.
        shared: Whether the verb has the options of :data:`SHARED`, or only ``--json`` and ``--debug``.
        about: Further arguments of ``typer.Typer.command``.
    """
    options = SHARED if shared else {each: SHARED[each] for each in ("json", "debug")}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(function, include_extras=True)
        _, *own = inspect.signature(function).parameters.values()
        parameters = [each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        parameters += [
            inspect.Parameter(
                each,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if each in ("json", "debug") else None,
                annotation=kind,
            )
            for each, kind in options.items()
        ]

        @functools.wraps(function)
        def command(**given: Any) -> None:
            chosen = {each.rstrip("_"): given.pop(each) for each in options}
            code = _carry_out(functools.partial(function, **given), chosen)
            if code:
                raise typer.Exit(code)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(name, **about)(command)
        return function

    return decorate


async def while_connected(connection: Connection, work: Awaitable[object]) -> None:
    """Wait for a coroutine or a future until it ends, or until the connection has failed for good.

    Args:
        connection: A started connection.
        work: The coroutine or the future.

    Raises:
        TransportError: Why the connection has failed, for example because another process took over its session.
    """
    working = asyncio.ensure_future(work)
    failures: list[TransportError] = []

    def fail(error: TransportError) -> None:
        failures.append(error)
        working.cancel()

    connection.on_failed.append(fail)
    try:
        await working
    except asyncio.CancelledError:
        if failures:
            raise failures[0] from None
        raise
    finally:
        connection.on_failed.remove(fail)
        working.cancel()


def _carry_out(function: Callable[[Session], Any], options: dict[str, Any]) -> int:
    """Run a verb. Every error becomes a message and an exit code."""
    out = Output(machine=bool(options["json"]))
    settings: Settings | None = None
    level = logging.INFO if options["debug"] else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")
    try:
        settings = Settings.of(options)
        result = function(Session(settings, out))
        if inspect.iscoroutine(result):
            result = _run(result)
        return result or 0
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except BrokenPipeError:
        raise  # the reader of the output has gone; Typer ends the process quietly
    except typer.Exit as ended:
        return ended.exit_code
    except Exception as error:
        return out.error(error, settings)


def _run(coroutine: Coroutine[Any, Any, int | None]) -> int | None:
    """Run a coroutine on a new event loop. SIGTERM ends it in the same orderly way as Ctrl-C."""

    async def main() -> int | None:
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # on Windows, or in another thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await coroutine

    return asyncio.run(main())
