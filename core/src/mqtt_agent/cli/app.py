"""The command line ``mqtt-agent``: all verbs, those of this distribution and those that others add by entry points.

A distribution adds verbs with an entry point of the group ``mqtt_agent.commands``: a function that gets the
:class:`typer.Typer` and adds its verbs with :func:`mqtt_agent.cli.verbs.verb`.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from mqtt_agent.cli import (
    auditing,
    benching,
    brokers,
    calling,
    console,
    contexts,
    doctor,
    forgetting,
    keys,
    listing,
    scraping,
    serving,
    stored,
    tasks,
    watching,
)
from mqtt_agent.cli.output import INTERRUPTED, WRONG_USAGE, Output
from mqtt_agent.version import __version__

__all__ = ["make_app", "run"]

_GROUP = "mqtt_agent.commands"


_ELSEWHERE = {"bridge": "mcp-mqtt-agent", "mcp": "mcp-mqtt-agent", "a2a": "a2a-mqtt-agent"}
"""The verbs of other distributions, by name."""


class _Root(TyperGroup):
    """All verbs. With ``--json``, a command line that cannot be understood is told as JSON too."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        distribution = _ELSEWHERE.get(args[0]) if args else None
        if distribution is not None and args[0] not in self.commands:
            ctx.fail(f"the verb {args[0]!r} comes with {distribution}: pip install {distribution} (docs/install.md)")
        return super().resolve_command(ctx, args)

    def main(self, args: Any = None, *more: Any, standalone_mode: bool = True, **options: Any) -> Any:
        words: list[str] = sys.argv[1:] if args is None else list(args)
        own = words[: words.index("--")] if "--" in words else words
        if not standalone_mode or "--json" not in own:
            return super().main(args, *more, standalone_mode=standalone_mode, **options)
        try:
            code = super().main(words, *more, standalone_mode=False, **options)
        except typer.Abort:
            code = INTERRUPTED
        except Exception as error:
            explain: Callable[[], str] | None = getattr(error, "format_message", None)  # only of errors of the parser
            if explain is None:
                raise
            about = {"type": "UsageError", "message": explain(), "next": "see mqtt-agent VERB --help"}
            Output(machine=True).json({"error": about})
            code = WRONG_USAGE
        sys.exit(code or 0)


def make_app() -> typer.Typer:
    """Make the command line with all verbs that are installed."""
    app = typer.Typer(
        name="mqtt-agent",
        cls=_Root,
        help="Tools and agents over an MQTT 5 broker: start a broker, serve, look around, call, delegate.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(  # pyright: ignore[reportUnusedFunction]
        version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True, callback=_version),
    ) -> None: ...

    for module in (
        brokers,
        serving,
        listing,
        calling,
        tasks,
        stored,
        watching,
        console,
        scraping,
        benching,
        doctor,
        forgetting,
        keys,
        auditing,
        contexts,
    ):
        module.add_to(app)
    for entry in importlib.metadata.entry_points(group=_GROUP):
        try:
            entry.load()(app)
        except Exception as error:  # a broken distribution must not take the other verbs away
            print(f"mqtt-agent: the verb {entry.name!r} cannot be loaded: {error}", file=sys.stderr)  # noqa: T201
    return app


def run(arguments: Sequence[str]) -> None:
    """Run the command line.

    Args:
        arguments: The words after ``mqtt-agent``.

    Raises:
        SystemExit: Always, with the exit code; see :func:`mqtt_agent.cli.main.main`.
    """
    make_app()(list(arguments))


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)  # noqa: T201
        raise typer.Exit
