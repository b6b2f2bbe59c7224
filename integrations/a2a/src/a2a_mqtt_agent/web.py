"""The HTTP application of the gateway: JSON-RPC, HTTP+JSON and cards of all agents under one port."""

from __future__ import annotations

import hashlib
import json
from email.utils import formatdate

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.server.routes import DefaultServerCallContextBuilder, create_jsonrpc_routes, create_rest_routes
from a2a.types import a2a_pb2 as a2a
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from a2a_mqtt_agent.handler import AGENT, REQUEST, Cards, Names

__all__ = ["application"]

_PLACE = "/agents/{agent}"
_CARD = "/.well-known/agent-card.json"


class _Contexts(DefaultServerCallContextBuilder):
    """Notes which agent a request is for."""

    def build(self, request: Request) -> ServerCallContext:
        context = super().build(request)
        context.state[AGENT] = request.path_params.get("agent", "")
        context.state[REQUEST] = request
        return context


def application(handler: RequestHandler, card_of: Cards, names: Names) -> Starlette:
    """Make the HTTP application.

    Args:
        handler: Answers the requests.
        card_of: Makes the card of an agent; None when the agent is not served.
        names: The names of the agents that are served.
    """
    changes: dict[str, tuple[str, str]] = {}

    async def shown(request: Request, name: str) -> Response:
        found = await card_of(name, False)
        return _missing() if found is None else _shown(request, found, changes)

    async def card(request: Request) -> Response:
        return await shown(request, request.path_params["agent"])

    async def only_card(request: Request) -> Response:
        known = await names()
        return await shown(request, known[0]) if len(known) == 1 else _missing()

    async def listed(request: Request) -> Response:
        cards = [await card_of(name, False) for name in await names()]
        return JSONResponse({"agents": [agent_card_to_dict(each) for each in cards if each is not None]})

    builder = _Contexts()
    routes: list[BaseRoute] = [
        Route("/agents", listed, methods=["GET"]),
        Route(_CARD, only_card, methods=["GET"]),
        Route(_PLACE + _CARD, card, methods=["GET"]),
        *create_jsonrpc_routes(handler, _PLACE, builder, enable_v0_3_compat=True),
        *create_jsonrpc_routes(handler, _PLACE + "/", builder, enable_v0_3_compat=True),
    ]
    rest = create_rest_routes(handler, builder, enable_v0_3_compat=True, path_prefix=_PLACE)
    routes += [route for route in rest if isinstance(route, Route)]  # agents have places of their own, and no tenants
    return Starlette(routes=routes)


def _missing() -> Response:
    return JSONResponse({"error": "there is no such agent"}, 404)


def _shown(request: Request, card: a2a.AgentCard, changes: dict[str, tuple[str, str]]) -> Response:
    """The answer with a card. ``changes`` has the digest of each agent's card, and when it was first seen."""
    shown = agent_card_to_dict(card)
    digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
    if changes.get(card.name, ("",))[0] != digest:
        changes[card.name] = digest, formatdate(usegmt=True)
    changed = changes[card.name][1]
    headers = {"ETag": f'W/"{digest}"', "Last-Modified": changed, "Cache-Control": "public, max-age=60"}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if f'"{digest}"' in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return JSONResponse(shown, headers=headers)
