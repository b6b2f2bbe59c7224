"""Calls that still run when their connection ends for good leave no exception behind that nobody looks at."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mqtt_agent import Connection, ToolContext, ToolServer
from mqtt_agent.errors import SessionTakenOver, TopicNotAuthorized
from mqtt_agent.wire import Call, Topics, encode
from scripted import ScriptedBroker
from support import soon, until

CALL = encode(Call(call_id="c", client="caller", stream=True))


class Talking:
    """A server whose handler streams one partial result, and then waits for ``finish``."""

    def __init__(self, broker: ScriptedBroker, namespace: str) -> None:
        self.started, self.finish = asyncio.Event(), asyncio.Event()
        self.server = ToolServer(
            "server", replica="a", broker=broker.url, namespace=namespace, session_expiry=60, drain_timeout=0
        )

        @self.server.tool
        async def talk(ctx: ToolContext) -> None:
            await ctx.stream("word")
            self.started.set()
            await self.finish.wait()


@pytest.fixture
async def forgotten() -> AsyncIterator[list[str]]:
    """What asyncio reports about exceptions that nobody has retrieved."""
    told: list[str] = []
    loop = asyncio.get_running_loop()

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "never retrieved" in context["message"]:
            told.append(f"{context['message']}: {context.get('exception')!r}")

    loop.set_exception_handler(tell)
    yield told
    loop.set_exception_handler(None)


async def test_a_call_that_waited_in_the_session_ends_with_the_start_that_fails(
    namespace: str, forgotten: list[str]
) -> None:
    topics = Topics(namespace)
    async with ScriptedBroker() as broker:
        before = Connection(broker.url, client_id="server:a", session_expiry=60)
        await before.start()
        await before.subscribe(topics.tool_call_shared("talk"), lambda _: None)
        await before.stop()
        caller = Connection(broker.url)
        await caller.start()
        await caller.publish(topics.tool_call("talk"), CALL)
        await caller.stop()
        talking = Talking(broker, namespace)
        broker.change(suback=lambda topic_filter: 0x87 if topic_filter.endswith("/cancel") else None)
        with pytest.raises(TopicNotAuthorized):
            await soon(talking.server.start())
        assert talking.started.is_set()
        gc.collect()  # asyncio reports an exception when its task is deleted
        assert forgotten == []


async def test_a_call_whose_stream_cannot_be_ended_is_still_answered(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer cannot be sent either, which the log says: the call is over."""
    async with ScriptedBroker() as broker:
        talking = Talking(broker, namespace)
        await soon(talking.server.start())
        caller = Connection(broker.url)
        await caller.start()
        await caller.publish(Topics(namespace).tool_call("talk"), CALL)
        await caller.stop()
        await soon(talking.started.wait())
        talking.server.connection.give_up(SessionTakenOver("another process has the session"))
        talking.finish.set()
        await until(lambda: talking.server.active_calls == 0)
        await soon(talking.server.stop())
        assert "the response to call c could not be sent: another process has the session" in caplog.text
