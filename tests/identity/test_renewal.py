"""Tokens that expire again and again while calls are under way: no call is lost, and none runs twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from brokers.guarded import SECRET, DynamicSecurity, JWTEjabberd
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.identity import claims_of, issue
from mqtt_agent.transport import IssuedToken, Token
from support import require, soon

from .framework import ROSTER

LIFETIME = 10.0  # seconds; a busy machine must connect within it
RENEWALS = 2
IN_FLIGHT = 16


def credentials(broker: Any, user: str) -> Token:
    """The login of a program, for ``LIFETIME`` seconds: a JWT for ejabberd, a password that expires for Mosquitto."""
    login = ROSTER.login(user)

    def fresh() -> IssuedToken | str:
        if isinstance(broker, JWTEjabberd):
            return issue(claims_of(ROSTER, login, lifetime=LIFETIME), SECRET)
        return IssuedToken(broker.password_of(login), expires=time.time() + LIFETIME)

    return Token(fresh, username=login.user)


@pytest.mark.long
@pytest.mark.parametrize("kind", [DynamicSecurity, JWTEjabberd], ids=lambda kind: kind.name)
async def test_calls_go_on_while_the_tokens_of_the_caller_and_of_the_server_are_renewed(kind: Any) -> None:
    require(kind)
    ran: Counter[int] = Counter()

    async def add(n: int) -> int:
        ran[n] += 1
        await asyncio.sleep(0.05)  # the call is under way for a while
        return n

    with kind(ROSTER) as broker:
        where: dict[str, Any] = {"broker": broker.where, "namespace": "ns", "bound": "require"}
        server = ToolServer("toolbox", **where, replica="1", credentials=credentials(broker, "toolbox.1"))
        server.add_tool("add", add)
        client = ToolClient("hands", **where, client_id="hands", credentials=credentials(broker, "hands"))
        async with server, client:
            ends = [each.connection.epoch + RENEWALS for each in (server, client)]
            numbers = iter(range(1_000_000))

            async def call_on() -> None:
                while server.connection.epoch < ends[0] or client.connection.epoch < ends[1]:
                    number = next(numbers)
                    assert await client.call("add", {"n": number}) == number

            await soon(asyncio.gather(*(call_on() for _ in range(IN_FLIGHT))), 120)
            assert server.connection.epoch >= ends[0]
            assert client.connection.epoch >= ends[1]
    assert set(ran.values()) == {1}
