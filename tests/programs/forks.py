"""Scenarios in which a process forks: forks.py SCENARIO URL NAMESPACE FOLDER.

Each line on the standard output is a JSON value that the scenario reports.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mqtt_agent
from mqtt_agent import EmbeddedBroker, sync
from mqtt_agent.adapting.identity import default_agent_id
from mqtt_agent.adapting.requesters import Requester, RequesterSettings
from mqtt_agent.transport import BrokerSettings

url, namespace, folder = sys.argv[2:5]
there: dict[str, Any] = {"broker": url, "namespace": namespace}
context: Any = multiprocessing.get_context("fork") if sys.platform != "win32" else None


def tell(**report: Any) -> None:
    os.write(1, json.dumps(report).encode() + b"\n")


def outcome(function: Callable[[], Any]) -> dict[str, Any]:
    """What a function returned or raised, and after how many seconds."""
    began = time.monotonic()
    try:
        told = {"value": function()}
    except Exception as error:
        told = {"error": type(error).__name__, "text": str(error)}
    return {**told, "seconds": time.monotonic() - began}


def in_child(*functions: Callable[[], Any], leave: Callable[[], Any] = sys.exit) -> list[dict[str, Any]]:
    """Call functions in a forked child process, which then ends like any program.

    Returns:
        The outcomes of the functions, and how the child ended.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(15)  # a child that hangs is killed
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            json.dump([outcome(each) for each in functions], file)
        leave()
    os.close(writing)
    with os.fdopen(reading) as file:
        told = json.loads(file.read() or "[]")
    began = time.monotonic()
    status = os.waitpid(pid, 0)[1]
    return [*told, {"exit": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began}]


def in_two_children(function: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Call a function in two children at the same time. It gets a barrier for both."""
    barrier, results = context.Barrier(2), context.SimpleQueue()

    def work() -> None:
        signal.alarm(30)
        results.put(outcome(lambda: function(barrier)))

    children = [context.Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [results.get() for _ in children if not results.empty()]


def who_am_i(client: Any) -> str:
    return client.call("whoami", timeout=5)


def new_client_calls() -> str:
    with sync.ToolClient(**there) as client:
        return who_am_i(client)


# Blocking endpoints


def connected_client() -> None:
    with sync.ToolClient("caller", **there) as client:
        handle = client.submit("whoami")
        handle.result()
        told = in_child(
            lambda: who_am_i(client),
            lambda: client.list_tools(),
            handle.result,
            client.start,
            client.stop,
            new_client_calls,
        )
        tell(child=told, parent=who_am_i(client), epoch=client.connection.epoch)


def connected_agent() -> None:
    def new_agent(name: str, store: str) -> Any:
        with sync.Agent(name, store=f"{folder}/{store}.db", **there) as another:
            return another.request("helper", "x", timeout=10)

    with sync.Agent("parent", store=f"{folder}/parent.db", **there) as agent:
        handle = agent.delegate("helper", "wait")
        told = in_child(
            lambda: agent.request("helper", "x", timeout=5),
            lambda: handle.result(5),
            lambda: [card.name for card in agent.peers()],
            agent.stop,
            lambda: new_agent("child", "child"),
            lambda: new_agent("child", "parent"),
        )
        handle.cancel()
        tell(child=told, parent=agent.request("helper", "x", timeout=10), epoch=agent.connection.epoch)


def lazy_client() -> None:
    client = sync.ToolClient(**there)

    def call(barrier: Any) -> Any:
        names = {who_am_i(client)} if client.start() is None else set[str]()
        for _ in range(5):
            barrier.wait(10)
            names.add(who_am_i(client))
        return [*names, client.agent_id, client.connection.client_id, client.connection.epoch]

    tell(children=in_two_children(call), parent=client.agent_id)


def stopped_client() -> None:
    client = sync.ToolClient(**there)
    with client:
        first = who_am_i(client)

    def call(barrier: Any) -> Any:
        with client:
            barrier.wait(10)
            return who_am_i(client)

    told = in_two_children(call)
    with client:
        tell(children=told, parent=first, again=who_am_i(client))


def lazy_server() -> None:
    server = sync.ToolServer("forked", **there)
    server.add_tool("pid", os.getpid)

    def serve(barrier: Any) -> Any:
        with server, sync.ToolClient(**there) as client:
            barrier.wait(10)
            listed = sorted(card.server for card in client.list_servers() if card.name == "forked")
            barrier.wait(10)
            return [server.server_id, server.connection.client_id, listed]

    tell(children=in_two_children(serve), parent=server.server_id)


def one_agent_id() -> None:
    agent = sync.Agent("one", store=f"{folder}/one.db", **there)

    def use(barrier: Any) -> Any:
        first = barrier.wait(10) == 0
        if not first:
            barrier.wait(10)  # until the first one is connected
        with agent:
            answer = agent.request("helper", "x", timeout=10)
            try:
                if first:
                    barrier.wait(10)
                    agent.serve_forever()
                return answer
            finally:
                barrier.wait(20)  # the second one stays until the first one has been told

    tell(children=in_two_children(use))


def pool() -> None:
    requester = Requester(RequesterSettings(BrokerSettings(url, namespace), lasting=True))
    client = sync.ToolClient(**there)
    global work

    def work(number: int) -> Any:
        async def ask(agent: mqtt_agent.Agent) -> Any:
            return await agent.request("helper", f"{number}", timeout=10)

        client.start()
        return [requester.run_on_loop(ask), who_am_i(client), requester.agent_id]

    with context.Pool(2) as workers:
        told = workers.map(work, range(8), chunksize=1)
        workers.close()
        workers.join()
    tell(answers=told, parent=requester.agent_id)


def connected_requester() -> None:
    settings = RequesterSettings(BrokerSettings(url, namespace))
    requester = Requester(settings)

    async def ask(agent: mqtt_agent.Agent) -> Any:
        return await agent.request("helper", agent.agent_id, timeout=10)

    first = requester.run_on_loop(ask)
    told = in_child(
        lambda: requester.run_on_loop(ask),
        lambda: Requester(settings).run_on_loop(ask),
        requester.close,
        lambda: requester.run_on_loop(ask),
    )
    tell(child=told, first=first, parent=requester.run_on_loop(ask))
    requester.close()


def program_identity() -> None:
    """The middle process ends while its child lives. Then the program's name is free again."""
    ready, over = os.pipe(), os.pipe()
    if os.fork() == 0:
        mine = default_agent_id(namespace)
        if os.fork() == 0:
            os.close(over[1])
            tell(child=default_agent_id(namespace), parent=mine)
            os.write(ready[1], b"x")
            os.read(over[0], 1)  # until the first process ends
            os._exit(0)
        os.read(ready[0], 1)
        os._exit(0)
    os.wait()
    tell(next=default_agent_id(namespace))


# Async endpoints


def connected_async() -> None:
    async def main() -> None:
        agent = mqtt_agent.Agent("parent", store=f"{folder}/parent.db", **there)
        client = mqtt_agent.ToolClient(**there)
        async with agent, client:
            await client.list_tools()
            await agent.peers()
            handle = await agent.delegate("helper", "wait")
            call = await client.submit("hang", call_id="hang")
            joined = await client.submit("hang", call_id="hang")

            def run(function: Callable[[], Any]) -> Callable[[], Any]:
                async def main() -> Any:
                    return await function()

                return lambda: asyncio.run(main())

            uses = [
                lambda: agent.request("helper", "x"),
                agent.peers,
                handle.result,
                agent.start,
                lambda: agent.tool_client.list_tools(),
                lambda: client.call("whoami"),
                client.list_tools,
                call.result,
                joined.result,
                client.start,
                lambda: agent.connection.publish(f"{namespace}/x", b"x"),
            ]
            told = in_child(
                *map(run, uses), run(agent.stop), run(client.stop), new_client_calls, leave=lambda: os._exit(0)
            )
            await handle.cancel()
            await call.cancel()
            await joined.cancel()
            tell(
                child=told[:-4],
                stopped=told[-4:-2],
                new=told[-2],
                end=told[-1],
                parent=[await agent.request("helper", "x"), await client.call("whoami")],
                epochs=[agent.connection.epoch, client.connection.epoch],
            )

    asyncio.run(main())


def lazy_async() -> None:
    client = mqtt_agent.ToolClient(**there)

    def call(barrier: Any) -> Any:
        async def main() -> Any:
            async with client:
                names = set[str]()
                for _ in range(5):
                    await asyncio.to_thread(barrier.wait, 10)
                    names.add(await client.call("whoami", timeout=5))
                return [*names, client.agent_id, client.connection.client_id, client.connection.epoch]

        return asyncio.run(main())

    tell(children=in_two_children(call), parent=client.agent_id)


# The parent process goes on


def killed_parent() -> None:
    """The parent waits to be killed, while a child with copies of everything lives on."""
    agent = sync.Agent("parent", store=f"{folder}/parent.db", will_delay=0, **there)
    agent.start()
    child = os.fork()
    if child == 0:
        sys.stdin.read()  # until the test process closes the pipe
        os._exit(0)
    tell(parent=os.getpid(), child=child)
    signal.pause()


def served_signals() -> None:
    """A handler forks a child. The test sends SIGTERM to the child."""
    agent = mqtt_agent.Agent("parent", store=f"{folder}/parent.db", **there)

    @agent.on_task
    async def fork(task: mqtt_agent.TaskContext) -> Any:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"x")
            signal.alarm(20)
            while True:
                signal.pause()
        os.read(reading, 1)
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1])

    agent.run()


def embedded_broker() -> None:
    with EmbeddedBroker() as broker, sync.ToolClient(broker=broker.url) as client:
        told = in_child(lambda: broker.url)
        tell(child=told, parent=[each.tool for each in client.list_tools()], pid=broker.pid is not None)
        with sync.ToolClient(broker=broker.url):
            tell(connected=True)


def busy_stores() -> None:
    """Children use SQLite, while threads of the parent write all the time."""
    over = threading.Event()

    def delegate(agent: sync.Agent) -> None:
        while not over.is_set():
            agent.delegate("nobody", "x", wait_online=True)

    def use() -> Any:
        with sync.Agent(f"child-{os.getpid()}", store=f"{folder}/{os.getpid()}.db", **there) as agent:
            return agent.request("helper", "x", timeout=10)

    with ExitStack() as stack:
        agents = [sync.Agent(f"busy-{n}", store=f"{folder}/busy-{n}.db", **there) for n in range(2)]
        threads = [threading.Thread(target=delegate, args=[stack.enter_context(agent)]) for agent in agents]
        for thread in threads:
            thread.start()
        told = [in_child(use) for _ in range(10)]
        over.set()
        for thread in threads:
            thread.join()
    tell(children=told)


# Frameworks


def lazy_toolkit() -> None:
    from langchain_mqtt_agent import MQTTToolkit

    toolkit = MQTTToolkit(**there, peers="all")
    plain = MQTTToolkit(**there)

    def use(barrier: Any) -> Any:
        names = set[str]()
        for each in (toolkit, plain):
            for _ in range(3):
                barrier.wait(10)
                [whoami] = [tool for tool in each.get_tools() if tool.name == "whoami"]
                names.add(whoami.invoke({}))
        return [sorted(names), sorted([str(toolkit.agent_id), str(plain.agent_id)])]

    tell(children=in_two_children(use), parent=[toolkit.agent_id, plain.agent_id])


def closed_toolkit() -> None:
    from langchain_mqtt_agent import MQTTToolkit

    with MQTTToolkit(**there) as toolkit:
        [whoami] = [tool for tool in toolkit.get_tools() if tool.name == "whoami"]
        open_told = in_child(lambda: whoami.invoke({}))
    tell(children=in_two_children(lambda barrier: whoami.invoke({})), open=open_told)


def autogen_conversations() -> None:
    from autogen_mqtt_agent import MQTTAgent

    member = MQTTAgent("helper", **there)

    def conversation(barrier: Any) -> Any:
        return asyncio.run(member.save_state())["conversation_id"]

    tell(children=in_two_children(conversation), parent=conversation(None))


if __name__ == "__main__":
    Path(folder).mkdir(exist_ok=True)
    globals()[sys.argv[1]]()
