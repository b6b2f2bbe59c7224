"""Endpoints with the logins of the roster and ``bound="require"``: the victims, and whole systems."""

from __future__ import annotations

import asyncio
from typing import Any

from mqtt_agent import Agent, MemoryStore, Password, ToolClient, ToolContext, ToolServer

from .attempts import ROSTER
from .conftest import Cast


def settings(cast: Cast, name: str) -> dict[str, Any]:
    """The arguments of an endpoint with a login of the roster."""
    login = ROSTER.login(name)
    return {
        "broker": cast.broker.where,
        "namespace": "ns",
        "credentials": Password(login.user, cast.broker.password_of(login)),
        "bound": "require",
    }


def server(cast: Cast, replica: str) -> ToolServer:
    made = ToolServer("weather", replica=replica, **settings(cast, f"weather:{replica}"))

    @made.tool(idempotent=True)
    async def forecast(city: str, ctx: ToolContext) -> dict[str, Any]:
        await ctx.stream(city)
        if city == "nowhere":
            await asyncio.Event().wait()
        return {"city": city, "replica": replica, "client": ctx.client, "bound": ctx.bound}

    return made


def client(cast: Cast) -> ToolClient:
    return ToolClient("web", client_id="web", **settings(cast, "web"))


def agent(cast: Cast, name: str) -> Agent:
    return Agent(name, store=MemoryStore(), **settings(cast, name))
