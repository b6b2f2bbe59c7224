"""Three agents in conversation: the editor asks the writer, who asks the archive; what they say streams back.

Here all three run in one process, with a broker of their own:

    python examples/conversation.py

On three hosts, with a broker that all reach, start the first two and then the third. Kill one of the two, or cut its
network, while they talk: when it is back the conversation goes on, and none of it is lost.

    python examples/conversation.py archive --broker mqtt://broker.local
    python examples/conversation.py writer --broker mqtt://broker.local
    python examples/conversation.py editor --broker mqtt://broker.local
"""

import argparse
import asyncio
import contextlib

from mqtt_agent import Agent, EmbeddedBroker, MemoryStore, TaskContext

PAUSE = 0.2  # seconds, to have something to watch


def archive(agent: Agent) -> None:
    @agent.on_task
    async def look_up(task: TaskContext) -> list[str]:
        found: list[str] = task.saved or []
        for page in range(len(found) + 1, 6):  # after a crash, from the page that was saved last
            found.append(f"page {page} on {task.prompt}")
            await task.stream(found[-1])
            await task.save(found)
            await asyncio.sleep(PAUSE)
        return found


def writer(agent: Agent) -> None:
    @agent.on_task
    async def write(task: TaskContext) -> str:
        # An id made from our own: a second attempt finds the archive's task instead of asking twice.
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
    parser.add_argument("agent", nargs="?", choices=["archive", "writer", "editor"], help="only this one")
    parser.add_argument("--broker", help="its URL")
    options = parser.parse_args()
    if options.agent == "editor":
        async with Agent("editor", broker=options.broker) as agent:
            await editor(agent)
    elif options.agent:
        agent = Agent(options.agent, broker=options.broker)  # its tasks lie in a file in your state directory
        {"archive": archive, "writer": writer}[options.agent](agent)
        await agent.serve_forever(lambda: print(f"the {options.agent} is there; Ctrl-C stops it"))
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
