"""Tokens that expire again and again while calls are under way: no call is lost, and none runs twice."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto
from brokers.guarded import SECRET, DynamicSecurity, Guarded, JWTEjabberd
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.errors import TopicNotAuthorized, TransportError
from mqtt_agent.identity import Roster, claims_of, grants, issue, without_share
from mqtt_agent.transport import Connection, IssuedToken, Password, Token
from support import require, soon

from .framework import ROSTER

GO_AUTH = "MQTT_AGENT_TEST_GO_AUTH"
"""The variable with the path of go-auth.so, the plugin mosquitto-go-auth for Mosquitto 2."""
LIFETIME = 10.0  # seconds; a busy machine must connect within it
RENEWALS = 2
IN_FLIGHT = 16


class JWTMosquitto(Guarded, Mosquitto):
    """Mosquitto with mosquitto-go-auth, which checks the token's signature and end, also at each message.

    The plugin takes the token as the MQTT user name. Its rules are a script, made here from the rights of the roster.
    """

    name = "mosquitto-jwt"
    lifetime = 30.0  # a busy machine must renew in time: the plugin lets no message pass after the end of the token

    def __init__(self, roster: Roster) -> None:
        rights: dict[str, dict[str, list[str]]] = {}
        for login in roster.logins():
            own = rights[login.user] = {"publish": [], "subscribe": []}
            for grant in grants(roster, login.program):
                own[grant.action].append(without_share(grant.filled(login)))
        rules = f"""
            var own = ({json.dumps(rights)})[username] || {{publish: [], subscribe: []}};
            var asked = topic.replace(/^\\$share\\/[^\\/]*\\//, "").split("/");
            function covers(filter) {{
                var levels = filter.split("/");
                for (var i = 0; i < levels.length; i++) {{
                    if (levels[i] == "#") return true;
                    if (i >= asked.length || asked[i] == "#") return false;
                    if (levels[i] != "+" && levels[i] != asked[i]) return false;
                }}
                return levels.length == asked.length;
            }}
            (acc == 2 ? own.publish : own.subscribe).some(covers);
        """
        lines = [
            f"auth_plugin {os.environ.get(GO_AUTH, '')}",
            "auth_opt_backends jwt",
            "auth_opt_jwt_mode js",
            f"auth_opt_jwt_secret {SECRET}",
            "auth_opt_jwt_parse_token true",
            "auth_opt_jwt_js_ms_max_duration 10000",
            "auth_opt_jwt_js_user_script_path {folder}/user.js",
            "auth_opt_jwt_js_superuser_script_path {folder}/superuser.js",
            "auth_opt_jwt_js_acl_script_path {folder}/acl.js",
        ]
        files = {"user.js": 'username != "";', "superuser.js": "false;", "acl.js": rules}
        super().__init__(lines, anonymous=False, files=files)
        self.roster = roster

    @classmethod
    def missing(cls) -> str | None:
        plugin = os.environ.get(GO_AUTH, "")
        return super().missing() or (None if Path(plugin).is_file() else f"{GO_AUTH} does not name go-auth.so")

    def answers(self) -> bool:
        return self.accepts_tcp()


def credentials(broker: Any, user: str) -> Token:
    """The login of a program, for ``LIFETIME`` seconds: a JWT, or a password that expires for dynsec."""
    login = ROSTER.login(user)

    def fresh() -> IssuedToken | str:
        if isinstance(broker, JWTMosquitto):
            token = issue(claims_of(ROSTER, login, lifetime=broker.lifetime), SECRET)
            return IssuedToken("-", username=token, expires=time.time() + broker.lifetime)
        if isinstance(broker, JWTEjabberd):
            return issue(claims_of(ROSTER, login, lifetime=LIFETIME), SECRET)
        return IssuedToken(broker.password_of(login), expires=time.time() + LIFETIME)

    return Token(fresh, username=login.user)


@pytest.mark.long
@pytest.mark.parametrize("kind", [DynamicSecurity, JWTEjabberd, JWTMosquitto], ids=lambda kind: kind.name)
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


@pytest.mark.long
async def test_mosquitto_with_a_plugin_for_jwt_refuses_wrong_tokens_and_foreign_topics() -> None:
    require(JWTMosquitto)
    login = ROSTER.login("hands")
    with JWTMosquitto(ROSTER) as broker:

        async def reason(token: str) -> str | None:
            connection = Connection(broker.where, credentials=Password(token, "-"))
            try:
                await soon(connection.start(), 20)
            except TransportError as error:
                return type(error).__name__
            try:
                await soon(connection.publish("ns/mcp/tools/add/call/hands", b"{}"))
                with pytest.raises(TopicNotAuthorized):
                    await soon(connection.publish("ns/mcp/tools/add/call/toolbox", b"{}"))
            finally:
                await connection.stop()
            return None

        assert await reason(issue(claims_of(ROSTER, login, lifetime=60), SECRET)) is None
        for wrong in (
            issue(claims_of(ROSTER, login, lifetime=60), "f" * 32),
            issue(claims_of(ROSTER, login, lifetime=-60), SECRET),
            "hands",
        ):
            assert await reason(wrong) is not None
