"""An agent over MQTT that knows nothing of A2A: python researcher.py STORE, with $MQTT_AGENT_BROKER set."""

from __future__ import annotations

import sys

from mqtt_agent import Agent, TaskContext


def main() -> None:
    agent = Agent("researcher", description="Reads about a subject.", capabilities=["research"], store=sys.argv[1])

    @agent.on_task
    async def read(task: TaskContext) -> str:
        year = await task.ask("Since which year?")
        for number in range(1, 4):
            await task.progress(number, total=3, message=f"page {number} of 3")
        return f"{task.prompt} since {year}: three pages, for {task.sender}"

    agent.run()


if __name__ == "__main__":
    main()
