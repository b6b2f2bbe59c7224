"""An agent that works long on a task, and logs its steps: task_worker.py URL NAMESPACE FOLDER LAST.

Attempts before attempt number LAST work until they are killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from mqtt_agent import Agent, TaskContext

url, namespace, folder, last = sys.argv[1:5]
agent = Agent("worker", broker=url, namespace=namespace, store=Path(folder) / "worker.db", will_delay=1)
log = os.open(Path(folder) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@agent.on_task
async def work(task: TaskContext) -> str:
    os.write(log, f"begun {task.id} {task.attempt} {task.saved}\n".encode())
    await task.save({"page": task.attempt})
    if task.attempt < int(last):
        os.write(log, b"saved\n")
        await asyncio.Event().wait()
    os.write(log, f"done {task.id} {task.attempt}\n".encode())
    return f"result of attempt {task.attempt} after page {task.saved['page']}"


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


threading.Thread(target=die_with_parent, daemon=True).start()
agent.run()
