"""A LangChain agent works with tools that live in other processes, and goes on when one of those is killed.

    python examples/demo [--dir DIR] [--model provider:name] [--broker URL]

``story.py`` tells what happens; ``server.py`` is the tool server, ``code_tools.py`` what its tools do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
TIME_LIMIT = 50.0
TIME_LIMIT_WITH_A_REAL_MODEL = 600.0


def main() -> None:
    options = parse()
    # SIGTERM does what Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(options)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except Exception as error:  # for whoever watches, one line says more than a traceback
        sys.exit(f"demo: {one_line(error)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="A LangChain agent works with tools of two replicas.")
    parser.add_argument("--dir", type=Path, default=PROJECT, help="the folder that the tools are about")
    parser.add_argument("--model", help="a real language model, provider:name (default: a scripted stand-in)")
    parser.add_argument("--broker", help="URL of a running MQTT 5 broker (default: one of its own)")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    # Imported here and not above: it takes a second, in which Ctrl-C should do what it does later.
    import code_tools
    import models
    import story
    from mqtt_agent import EmbeddedBroker

    folder = options.dir.expanduser().resolve()
    if not folder.is_dir() or not code_tools.has_text(folder):
        raise story.DemoError(f"{folder} is no folder with text files in it")
    models.choose(options.model)  # what cannot work is known before anything is started
    limit = TIME_LIMIT_WITH_A_REAL_MODEL if options.model else TIME_LIMIT
    with contextlib.ExitStack() as stack:
        broker = options.broker or stack.enter_context(EmbeddedBroker()).url
        asyncio.run(interruptible(story.tell(broker, folder, options.model), limit))


async def interruptible(story: Coroutine[Any, Any, None], limit: float) -> None:
    """Cancel the story, so that it can clean up behind itself, on Ctrl-C, on SIGTERM, and when it takes too long."""
    telling = asyncio.ensure_future(story)
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # on Windows
            asyncio.get_running_loop().add_signal_handler(number, telling.cancel)
    done, _ = await asyncio.wait([telling], timeout=limit)
    if not done:
        telling.cancel()
        await asyncio.wait([telling])
        raise TimeoutError(f"not done within {limit:g} s")
    await telling


def one_line(error: Exception) -> str:
    """What went wrong: the first line of the message, with the kind of error where the message is not ours."""
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    ours = type(error).__module__.split(".")[0] in ("story", "models", "mqtt_agent")
    return text if ours and text else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main()
