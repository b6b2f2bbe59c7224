"""A task over A2A's HTTP: our gateway before an agent over MQTT, or the a2a-sdk alone with its store in SQLite.

python -m peers.a2a_http gateway|call-gateway mqtt://host:port
python -m peers.a2a_http sdk|call http://127.0.0.1:port/any

Both clients are the official one, with JSON-RPC and SendMessage. The gateway and the agent run in two processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import a2a_pb2 as a2a

from peers import load

STORES = Path(__file__).parent.parent / ".stores"
DOES = "bench-does"
AT_ONCE = 64


def port_of(url: str) -> int:
    """The port of the gateway at a broker's address. Client and server know it without talking about it."""
    return 20_000 + int(hashlib.sha256(url.encode()).hexdigest(), 16) % 10_000


@contextlib.contextmanager
def folder() -> Any:
    STORES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STORES) as name:
        yield Path(name)


async def work(url: str) -> None:
    """The agent behind the gateway."""
    from mqtt_agent import Agent, SqliteStore, TaskContext

    with folder() as stores:
        async with SqliteStore(stores / "does.db") as store:
            agent = Agent(DOES, broker=url, store=store, max_concurrency=AT_ONCE)

            @agent.on_task
            async def echo(task: TaskContext) -> str:
                return task.prompt or ""

            async with agent:
                load.ready()
                await asyncio.to_thread(load.wait_for_the_end)


async def gateway(url: str) -> None:
    from a2a_mqtt_agent import Gateway, Identity

    does = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "peers.a2a_http", "work", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert does.stdout is not None
    await does.stdout.readline()
    with folder() as stores:
        async with Gateway([Identity("bench-gives")], [DOES], broker=url, store=str(stores / "gives.db")) as served:
            serving = asyncio.ensure_future(served.serve("127.0.0.1", port_of(url)))
            await _answers(f"http://127.0.0.1:{port_of(url)}/agents/{DOES}")
            load.ready()
            await asyncio.to_thread(load.wait_for_the_end)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
    does.terminate()
    await does.wait()


async def sdk(url: str) -> None:
    """The a2a-sdk's own server, with its store of tasks in SQLite."""
    import uvicorn
    from a2a.server.agent_execution import AgentExecutor, RequestContext
    from a2a.server.events import EventQueue
    from a2a.server.request_handlers import DefaultRequestHandler
    from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
    from a2a.server.tasks import DatabaseTaskStore, TaskUpdater
    from sqlalchemy.ext.asyncio import create_async_engine
    from starlette.applications import Starlette

    class Echo(AgentExecutor):
        async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
            updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
            await event_queue.enqueue_event(
                a2a.Task(
                    id=context.task_id,
                    context_id=context.context_id,
                    status=a2a.TaskStatus(state=a2a.TASK_STATE_SUBMITTED),
                    history=[context.message],
                )
            )
            await updater.add_artifact([a2a.Part(text=context.get_user_input())], name="result")
            await updater.complete()

        async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
            raise NotImplementedError

    address = urlsplit(url)
    card = a2a.AgentCard(
        name="echo",
        description="Gives back what it gets.",
        version="1",
        supported_interfaces=[
            a2a.AgentInterface(protocol_binding="JSONRPC", url=f"http://{address.netloc}/rpc", protocol_version="1.0")
        ],
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[a2a.AgentSkill(id="echo", name="echo", description="echo", tags=["echo"])],
    )
    with folder() as stores:
        store = DatabaseTaskStore(create_async_engine(f"sqlite+aiosqlite:///{stores / 'sdk.db'}"))
        await store.initialize()
        handler = DefaultRequestHandler(Echo(), store, card)
        app = Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/rpc")])
        config = uvicorn.Config(app, host="127.0.0.1", port=address.port or 80, log_level="warning")
        serving = asyncio.ensure_future(uvicorn.Server(config).serve())
        await _answers(f"http://{address.netloc}")
        load.ready()
        await asyncio.to_thread(load.wait_for_the_end)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _answers(address: str) -> None:
    async with asyncio.timeout(20), httpx.AsyncClient() as http:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(f"{address}/.well-known/agent-card.json")).is_success:
                    return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def client(address: str) -> AsyncIterator[load.AsyncCall]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(timeout=load.LONGEST_CALL, limits=limits) as http:
        card = await A2ACardResolver(http, address).get_agent_card()
        own = ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create(card)

        async def call(text: str) -> str:
            message = a2a.Message(message_id=uuid.uuid4().hex, role=a2a.ROLE_USER, parts=[a2a.Part(text=text)])
            task = a2a.Task()
            async for event in own.send_message(a2a.SendMessageRequest(message=message)):
                task = event.task
            return task.artifacts[0].parts[0].text

        yield call


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role == "call":
        address = urlsplit(url)
        load.run_async(client(f"http://{address.netloc}"))
    elif role == "call-gateway":
        load.run_async(client(f"http://127.0.0.1:{port_of(url)}/agents/{DOES}"))
    else:
        asyncio.run({"work": work, "gateway": gateway, "sdk": sdk}[role](url))
