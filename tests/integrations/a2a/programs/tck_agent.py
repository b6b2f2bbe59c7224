"""The agent that the A2A Technology Compatibility Kit asks for, behind a gateway with all three transports.

    python tests/integrations/a2a/programs/tck_agent.py PORT GRPC_PORT
    ./run_tck.py --sut-host http://127.0.0.1:PORT          # in a checkout of a2aproject/a2a-tck

The kit's folder ``scenarios`` says what the agent does for each prefix of the message's id.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from a2a_mqtt_agent import Gateway, Identity
from mqtt_agent import Agent, EmbeddedBroker, MemoryStore, TaskContext, TaskMessage
from mqtt_agent.errors import TaskRejected
from mqtt_agent.wire import Part

ARTIFACTS: dict[str, list[Part]] = {
    "tck-artifact-text": [Part(text="Generated text content")],
    "tck-artifact-file-url": [
        Part(url="https://example.com/output.txt", filename="output.txt", media_type="text/plain")
    ],
    "tck-artifact-file": [Part.of_bytes(b"Generated", filename="output.txt", media_type="text/plain")],
    "tck-artifact-data": [Part(data={"key": "value", "count": 42})],
    "tck-stream-artifact-text": [Part(text="Streamed text content")],
    "tck-stream-artifact-file": [Part.of_bytes(b"Generated", filename="output.txt", media_type="text/plain")],
    "tck-stream-001": [Part(text="Stream hello from TCK")],
    "tck-stream-003": [Part(text="Stream task lifecycle")],
    "tck-stream-ordering-001": [Part(text="Ordered output")],
}
LONG = 5.0  # seconds of the task that is subscribed again: longer than twice the kit's timeout for streams


async def work(task: TaskContext) -> Any:
    """Do what the id of the message says."""
    name = task.messages[-1].message_id or ""
    if name.startswith("tck-input-required"):
        while str(await task.ask("What else?")).startswith("TCK history message"):
            pass  # the kit wants to be asked again after these answers
        return "answered"
    if name.startswith("tck-reject-task"):
        raise TaskRejected("rejected")
    if name.startswith("tck-message-response"):
        return TaskMessage(role="agent", content="Direct message response")
    if name.startswith("test-resubscribe-message-id"):
        await task.progress(1, 2, "working")
        await asyncio.sleep(LONG)
        return None
    if name.startswith("tck-stream-artifact-chunked"):
        await task.progress(1, 2, "working")
        await task.artifact("chunks", "chunk-1 ", last_chunk=False)
        await task.artifact("chunks", "chunk-2", append=True, last_chunk=True)
        return None
    if name.startswith("tck-complete-task"):
        return "Hello from TCK"
    prefix = max((each for each in ARTIFACTS if name.startswith(each)), key=len, default=None)
    if prefix is not None:
        if "stream" in prefix:
            await task.progress(1, 2, "working")
        await task.artifact("output", parts=ARTIFACTS[prefix])
    return None


async def main() -> None:
    """Serve until the end of the process."""
    port, grpc_port = map(int, sys.argv[1:])
    with EmbeddedBroker() as broker:
        skill = {"id": "tck", "name": "TCK", "description": "Does what the kit asks for.", "tags": ["tck"]}
        modes = ["text/plain", "application/json"]
        agent = Agent(
            "tck", broker=broker.url, store=MemoryStore(), skills=[skill], input_modes=modes, description="For the TCK."
        )
        agent.on_task(work)
        options: dict[str, Any] = {"broker": broker.url, "store": MemoryStore(), "allow_private_push": True}
        async with agent, Gateway([Identity("kit")], ["tck"], **options) as gateway:
            await gateway.serve("127.0.0.1", port, grpc_port=grpc_port)


if __name__ == "__main__":
    asyncio.run(main())
