"""Three agents in conversation: the editor asks the writer, and the writer asks the archive. All output is streamed.

This command runs all three agents in one process, with an embedded broker:

    python examples/conversation.py

To use three hosts with one common broker, start the archive and the writer first, and then the editor. Kill the archive
or the writer, or cut its network, during the conversation. When that agent is online again, the conversation continues,
and no part of it is lost.

    python examples/conversation.py archive --broker mqtt://broker.local
    python examples/conversation.py writer --broker mqtt://broker.local
    python examples/conversation.py editor --broker mqtt://broker.local
"""

import argparse
import asyncio
import contextlib

from mqtt_agent import Agent, EmbeddedBroker, MemoryStore, TaskContext

PAUSE = 0.2  # seconds between pages, so that you can watch the progress


def archive(agent: Agent) -> None:
    @agent.on_task
    async def look_up(task: TaskContext) -> list[str]:
        found: list[str] = task.saved or []
        for page in range(len(found) + 1, 6):  # after a crash, continue after the last saved page
            found.append(f"page {page} on {task.prompt}")
            await task.stream(found[-1])
            await task.save(found)
            await asyncio.sleep(PAUSE)
        return found


def writer(agent: Agent) -> None:
    @agent.on_task
    async def write(task: TaskContext) -> str:
        # The id is derived from our own task's id, so that a second attempt finds the archive's task again.
        asked = await agent.delegate(
            "archive", task.prompt, task_id=f"{task.id}-sources", context_id=task.context_id, wait_online=True
        )
        async for event in asked.events():
            if event.type == "partial":
                await task.stream(f"reading {event.content}")
        return f"an article from {len(await asked.result())} pages"


async def editor(agent: Agent) -> None:
    task = await agent.delegate("writer", "octopuses", context_id="issue-7", wait_online=True)
    async for event in task.events():
        if event.type == "partial":
            print(event.content)
    print("the writer sends", await task.result())


async def main() -> None:
    parser = argparse.ArgumentParser(description="Three agents in conversation.")
    parser.add_argument("agent", nargs="?", choices=["archive", "writer", "editor"], help="run only this agent")
    parser.add_argument("--broker", help="the broker's URL")
    options = parser.parse_args()
    if options.agent == "editor":
        async with Agent("editor", broker=options.broker) as agent:
            await editor(agent)
    elif options.agent:
        agent = Agent(options.agent, broker=options.broker)  # its tasks are stored in a file in your state directory
        {"archive": archive, "writer": writer}[options.agent](agent)
        await agent.serve_forever(lambda: print(f"the {options.agent} is online; Ctrl-C stops it"))
    else:
        with EmbeddedBroker() as broker:
            agents = [Agent(name, broker=broker.url, store=MemoryStore()) for name in ("archive", "writer", "editor")]
            archive(agents[0])
            writer(agents[1])
            async with agents[0], agents[1], agents[2]:
                await editor(agents[2])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
