"""An agent whose handler does what the text of its task says. The tests run it in a process of its own, or beside them.

python worker.py BROKER NAMESPACE STORE
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from mqtt_agent import Agent, TaskContext, TaskMessage
from mqtt_agent.errors import TaskFailed, TaskRejected


async def work(task: TaskContext) -> Any:
    """Do the task that the first word of the prompt names."""
    word, _, rest = (task.prompt or "").partition(" ")
    if word == "files":
        await task.artifact("copy", parts=[part for part in task.parts if part.kind != "text"])
        await task.artifact("page", "first ", last_chunk=False)
        await task.artifact("page", "second", append=True, last_chunk=True)
        return None
    if word == "message":
        return TaskMessage(role="agent", content=rest)
    if word == "ask":
        year = await task.ask("Which year?", {"type": "integer"})
        return {"year": year, "attempt": task.attempt}
    if word == "login":
        return f"token {await task.require_auth('Log in at https://login.example')}"
    if word == "fail":
        raise TaskFailed("no disk", code="E_DISK", data={"free": 0}, type="DiskError")
    if word == "refuse":
        raise TaskFailed("no disk", data={"huge": 10**400})
    if word == "reject":
        raise TaskRejected("not my job")
    if word == "wait":
        await task.artifact("begun", [1, 2])
        await asyncio.sleep(3600)
    if word == "slow":
        await task.artifact("begun", "yes")
        await asyncio.sleep(float(rest))
        return "late"
    if word == "stream":
        await task.progress(1, 2, "thinking")
        for part in ("MQTT ", "is ", "good."):
            await task.stream(part)
        return "MQTT is good."
    if word == "flood":
        for number in range(int(rest)):
            await task.artifact("page", f"{number} " + "x" * 50_000)
        return "flooded"
    if word == "drip":
        for _ in range(int(rest)):
            await task.stream("drop ")
        return "drop " * int(rest)
    if word == "odd":
        deep: Any = "bottom"
        for _ in range(150):
            deep = [deep]
        await task.artifact("deep", deep, metadata={"huge": 10**400})
        await task.artifact("huge", {"n": 10**400})
        return deep if rest == "deep" else {"n": 10**400}
    if word == "snowflake":
        return {"id": int(rest)}
    if word == "data":
        return {"got": task.data, "sender": task.sender, "references": task.reference_task_ids}
    return f"{task.prompt} by {task.sender}"


async def main() -> None:
    """Serve until the end of the process."""
    broker, namespace, store = sys.argv[1:]
    agent = Agent("worker", broker=broker, namespace=namespace, store=store, will_delay=1, description="Works.")
    agent.on_task(work)
    async with agent:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
