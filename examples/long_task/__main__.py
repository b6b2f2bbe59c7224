"""A task continues from its last checkpoint when its executor is killed, and a new process gets the result by its id.

    python examples/long_task [--pages 10] [--broker URL]

``researcher.py`` executes the task. This program gives the task, kills the process of ``researcher.py`` during the
task, and starts the process again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mqtt_agent import Agent, EmbeddedBroker

PROGRAM = Path(__file__).with_name("researcher.py")


class Researcher:
    """The process of the other agent. This class can kill it, and start it again with the same store."""

    def __init__(self, broker: str, store: Path) -> None:
        self._command = [sys.executable, str(PROGRAM), str(store)]
        self._environment = {**os.environ, "MQTT_AGENT_BROKER": broker}
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment, stderr=subprocess.DEVNULL)

    def kill_and_start_again(self) -> None:
        """Send SIGKILL: the process has no time to send or save anything."""
        self._process.kill()
        self._process.wait()
        print(f"process {self._process.pid} was killed")
        self._process = self._start()

    def stop(self) -> None:
        """Send SIGTERM: the process stops in an orderly way."""
        self._process.terminate()
        self._process.wait()


async def delegate(broker: str, folder: Path, pages: int) -> None:
    """Give the task, kill its executor, and get the result nevertheless."""
    researcher = Researcher(broker, folder / "researcher.db")
    try:
        async with Agent("planner", broker=broker, store=folder / "planner.db") as planner:
            handle = await planner.delegate("researcher", "the book", data={"pages": pages}, wait_online=True)
            print(f"task {handle.task_id} is on disk")
            async for event in handle.events():
                if event.type == "progress" and (event.progress or 0) >= pages // 2:
                    break
            researcher.kill_and_start_again()
            await handle.show()
        # A new process can do the same. It needs only the agent's id, the agent's store, and the task's id.
        async with Agent("planner", broker=broker, store=folder / "planner.db") as planner:
            print(await (await planner.resume(handle.task_id)).result())
    finally:
        researcher.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="long_task", description="A task that survives a SIGKILL.")
    parser.add_argument("--pages", type=int, default=10)
    parser.add_argument("--broker", help="URL of a running MQTT 5 broker (default: an embedded broker)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="long-task-")))
        broker = options.broker or stack.enter_context(EmbeddedBroker()).url
        asyncio.run(delegate(broker, folder, options.pages))


if __name__ == "__main__":
    main()
