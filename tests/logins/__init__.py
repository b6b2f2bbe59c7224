"""Whole programs on a broker that knows a roster: each endpoint gets its login, its client id and ``bound="require"``.

The programs are those of other tests and of the examples. They know nothing of logins, so the processes take theirs
from a file that the environment names; see ``site/sitecustomize.py``.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mqtt_agent.identity import Roster

__all__ = ["LOGINS", "denials", "environment", "take_logins"]

LOGINS = "MQTT_AGENT_TEST_LOGINS"
_TESTS = Path(__file__).parents[1]


def environment(broker: Any) -> dict[str, str]:
    """The environment in which all programs use the logins of a guarded broker's roster."""
    roster: Roster = broker.roster
    known: dict[str, dict[str, str]] = {"agent": {}, "client": {}, "server": {}}
    for login in roster.logins():
        about = {"name": login.program.name, "user": login.user, "password": broker.password_of(login)}
        name = login.server_id or "" if login.program.kind == "server" else login.program.name
        known.setdefault(login.program.kind, {})[name] = json.dumps({**about, "client_id": login.client_id})
    path = broker.folder / "logins.json"
    path.write_text(json.dumps(known))
    folders = [str(_TESTS / "logins" / "site"), str(_TESTS), os.environ.get("PYTHONPATH", "")]
    return {LOGINS: str(path), "PYTHONPATH": os.pathsep.join(filter(None, folders))}


def denials(log: str) -> list[str]:
    """The lines of Mosquitto's log that tell a denial, or that a login was refused."""
    return [line for line in log.splitlines() if "denied" in line.lower() or "not authorised" in line.lower()]


def take_logins(path: str) -> Callable[[], None]:
    """Let each endpoint of this process use its login.

    An endpoint with a generated name takes the first name of its kind in the roster.

    Returns:
        A function that ends this.
    """
    from mqtt_agent import Agent, Password, ToolClient, ToolServer

    known: dict[str, dict[str, str]] = json.loads(Path(path).read_text())
    undo: list[Callable[[], None]] = []

    def wrap(kind: type[Any], part: str) -> None:
        original: Any = kind.__init__

        @functools.wraps(original)
        def init(self: Any, name: str | None = None, **options: Any) -> None:
            if options.get("connection") is None:
                name, chosen = _login(known[part], part, name, options)
                options |= {**chosen, "bound": "require"}
            original(self, name, **options)

        replace = functools.partial(setattr, kind, "__init__")
        replace(init)
        undo.append(lambda: replace(original))

    def _login(
        logins: dict[str, str], part: str, name: str | None, options: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        key = name or ""
        if part == "server":
            key = next(each for each in logins if each.startswith(f"{name}:{options.get('replica') or ''}"))
        if key not in logins:
            key = next(iter(logins))
        login = json.loads(logins[key])
        chosen = {"credentials": Password(login["user"], login["password"]), "client_id": login["client_id"]}
        if part == "server":
            chosen["replica"] = key.partition(":")[2]
        return login["name"], chosen

    wrap(Agent, "agent")
    wrap(ToolClient, "client")
    wrap(ToolServer, "server")

    def end() -> None:
        for each in undo:
            each()

    return end
