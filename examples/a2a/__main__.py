"""Agents over MQTT and agents over HTTP work together, and a gateway that is killed forgets nothing.

    python examples/a2a [--broker URL]

``researcher.py`` is an agent over MQTT. ``mqtt-agent a2a serve`` shows the agent to clients of A2A over HTTP, and the
official client of the A2A SDK gives it a task. The agent asks a question. The gateway is killed while the question is
open, and started again, and the client answers. Then ``mqtt-agent a2a join`` lets the same agent do a task in another
namespace, as if that namespace belonged to another company that reaches the agent only over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import a2a_pb2 as a2a
from mqtt_agent import Agent, EmbeddedBroker

PROGRAM = Path(__file__).with_name("researcher.py")
COMMAND = str(Path(sys.executable).with_name("mqtt-agent"))
OTHERS = "other-company/v1"


class Process:
    """A process that is ended with the example."""

    def __init__(self, broker: str, *command: str, namespace: str = "a2a/v1") -> None:
        environment = {**os.environ, "MQTT_AGENT_BROKER": broker, "MQTT_AGENT_NAMESPACE": namespace}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """Send SIGKILL: the process has no time to send or save anything."""
        self._process.kill()
        self._process.wait()
        print(f"the gateway, process {self._process.pid}, was killed")

    def stop(self) -> None:
        """Send SIGTERM: the process stops in an orderly way."""
        self._process.terminate()
        self._process.wait()


@contextlib.asynccontextmanager
async def client_of(address: str) -> AsyncIterator[Client]:
    """The client of the A2A SDK for one agent, once the agent's card can be read."""
    async with httpx.AsyncClient(timeout=30) as http:
        while True:
            try:
                card = await A2ACardResolver(http, address).get_agent_card()
            except (A2AClientError, httpx.TransportError):
                await asyncio.sleep(0.1)  # the gateway starts
            else:
                break
        yield ClientFactory(ClientConfig(httpx_client=http)).create(card)


async def say(client: Client, text: str, task: a2a.Task | None = None) -> a2a.Task:
    """Send a message, and show what happens until the task is over or asks."""
    message = a2a.Message(message_id=uuid.uuid4().hex, role=a2a.ROLE_USER, parts=[a2a.Part(text=text)])
    if task is not None:
        message.task_id, message.context_id = task.id, task.context_id
    task_id = message.task_id
    async for event in client.send_message(a2a.SendMessageRequest(message=message)):
        task_id = event.task.id or task_id
        status = event.status_update.status
        if status.HasField("message"):
            print(f"{a2a.TaskState.Name(status.state)}: {status.message.parts[0].text}")
    return await client.get_task(a2a.GetTaskRequest(id=task_id))


async def over_http(broker: str, gateway: list[str], address: str) -> Process:
    """Give the task over HTTP, kill the gateway while the question is open, and answer. Returns the next gateway."""
    serving = Process(broker, *gateway)
    async with client_of(address) as client:
        task = await say(client, "octopuses")
    serving.kill()
    serving = Process(broker, *gateway)
    async with client_of(address) as client:
        answered = await say(client, "2020", task)
        print("the client of A2A gets:", answered.artifacts[0].parts[0].text)
    return serving


async def over_mqtt(broker: str, folder: Path, address: str) -> None:
    """Give a task to the same agent from a namespace that reaches it only over HTTP."""
    store = str(folder / "joined.db")
    command = [COMMAND, "a2a", "join", address, "--agent-id", "far-researcher", "--store", store]
    joined = Process(broker, *command, namespace=OTHERS)
    try:
        async with Agent("planner", broker=broker, namespace=OTHERS, store=folder / "planner.db") as planner:
            handle = await planner.delegate("far-researcher", "squids", wait_online=True)

            async for event in handle.events():
                if handle.question is not None:
                    print("the planner is asked:", event.content)
                    await handle.send("2024")
                    break
            print("the planner gets:", await handle.result())
    finally:
        joined.stop()


async def run(broker: str, folder: Path) -> None:
    researcher = Process(broker, sys.executable, str(PROGRAM), str(folder / "researcher.db"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    gateway = [COMMAND, "a2a", "serve", "researcher", "--port", port, "--store", str(folder / "gateway.db")]
    address = f"http://127.0.0.1:{port}/agents/researcher"
    try:
        serving = await over_http(broker, gateway, address)
        await over_mqtt(broker, folder, address)
        serving.stop()
    finally:
        researcher.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="a2a", description="Agents over MQTT and agents over HTTP work together.")
    parser.add_argument("--broker", help="URL of a running MQTT 5 broker (default: an embedded broker)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="a2a-")))
        broker = options.broker or stack.enter_context(EmbeddedBroker()).url
        asyncio.run(run(broker, folder))


if __name__ == "__main__":
    main()
