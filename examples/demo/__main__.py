"""A LangChain agent works with tools of two other processes, and continues when one of these processes is killed.

    python examples/demo [--dir DIR] [--model provider:name] [--broker URL]

``story.py`` is the sequence of the demo, ``server.py`` is the tool server, and ``code_tools.py`` contains its tools.
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
    except Exception as error:  # one line helps the user of the demo more than a traceback
        sys.exit(f"demo: {one_line(error)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="A LangChain agent works with tools of two replicas.")
    parser.add_argument("--dir", type=Path, default=PROJECT, help="the folder that the tools read (default: this one)")
    parser.add_argument("--model", help="a real language model, provider:name (default: a scripted stand-in)")
    parser.add_argument("--broker", help="URL of a running MQTT 5 broker (default: an embedded broker)")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    # These imports take a second. They are here, and not at the top, so that Ctrl-C works during that second.
    import code_tools
    import models
    import story
    from mqtt_agent import EmbeddedBroker

    folder = options.dir.expanduser().resolve()
    if not folder.is_dir() or not code_tools.has_text(folder):
        raise story.DemoError(f"{folder} is no folder with text files in it")
    models.choose(options.model)  # an unusable model is reported before any process is started
    limit = TIME_LIMIT_WITH_A_REAL_MODEL if options.model else TIME_LIMIT
    with contextlib.ExitStack() as stack:
        broker = options.broker or stack.enter_context(EmbeddedBroker()).url
        asyncio.run(interruptible(story.tell(broker, folder, options.model), limit))


async def interruptible(story: Coroutine[Any, Any, None], limit: float) -> None:
    """Cancel the demo on Ctrl-C, on SIGTERM, and after ``limit`` seconds, so that it can stop its processes."""
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
    """The first line of the error message, with the class of the error if the message is not from this project."""
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    ours = type(error).__module__.split(".")[0] in ("story", "models", "mqtt_agent")
    return text if ours and text else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main()
