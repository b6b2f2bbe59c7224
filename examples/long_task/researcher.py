"""An agent that executes long tasks: python researcher.py STORE, with $MQTT_AGENT_BROKER set."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from mqtt_agent import Agent, TaskContext


def main() -> None:
    agent = Agent("researcher", capabilities=["research"], store=sys.argv[1])

    @agent.on_task
    async def read(task: TaskContext) -> dict[str, Any]:
        pages: list[int] = task.saved or []  # for each page, the id of the process that read it, also before a crash
        total = task.data["pages"]
        while len(pages) < total:
            await task.progress(len(pages), total=total, message=f"page {len(pages) + 1} of {task.prompt}")
            await asyncio.sleep(0.2)  # simulates reading
            pages.append(os.getpid())
            await task.save(pages)
        return {"pages": len(pages), "processes": len(set(pages)), "attempt": task.attempt}

    agent.run()


if __name__ == "__main__":
    main()
