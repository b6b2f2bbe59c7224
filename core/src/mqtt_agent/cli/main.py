"""The console script ``mqtt-agent``: it checks that the packages of the extra ``cli`` are there, and runs the verb."""

from __future__ import annotations

import importlib.util
import signal
import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich", "tomli_w")


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: Always, with the exit code: 0 for done, 1 when the answer was an error, 2 for a wrong command line,
            3 when nobody is there (no broker, no such tool or agent), 130 after Ctrl-C.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201
            f"mqtt-agent: the package {missing[0]} is missing.\nNext: pip install 'mqtt-agent[cli]'", file=sys.stderr
        )
        sys.exit(2)
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the imports take a moment, and Ctrl-C must be quiet there too
    from mqtt_agent.cli.app import run  # needs the packages

    signal.signal(signal.SIGINT, interrupt)
    run(sys.argv[1:])
