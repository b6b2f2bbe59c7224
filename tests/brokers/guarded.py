"""Brokers that know a roster: the configuration is exactly the one that ``mqtt_agent.identity`` makes."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

from mqtt_agent.identity import Login, Plan, Roster, claims_of, issue, plan_for

from .ejabberd import Ejabberd
from .mosquitto import Mosquitto
from .process import ProcessBroker

__all__ = ["GUARDED", "ACLFile", "DynamicSecurity", "Guarded", "JWTEjabberd"]

SECRET = "0123456789abcdef0123456789abcdef"


class Guarded:
    """A broker whose logins are those of a roster. It is mixed into the class of a broker."""

    roster: Roster
    made: Plan
    port: int
    folder: Path

    @property
    def where(self) -> str:
        """The broker's URL without credentials."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def shares(self) -> bool:
        """Whether the broker has shared subscriptions."""
        return not isinstance(self, Ejabberd)

    def password_of(self, login: Login) -> str:
        """The password with which a login connects."""
        return f"secret of {login.user}"


def _dynamic_security() -> Path | None:
    return next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)


class _GuardedMosquitto(Guarded, Mosquitto):
    plan = ""

    def __init__(self, roster: Roster, **options: Any) -> None:
        first = roster.logins()[0]
        super().__init__(anonymous=False, credentials={"username": first.user, "password": self.password_of(first)})
        self.roster = roster
        passwords = {each.user: self.password_of(each) for each in roster.logins()}
        self.made = plan_for(self.plan, roster, passwords=passwords, folder=str(self.folder), **options)
        self.files = dict(self.made.files)
        config = self.files.pop("mosquitto.conf").splitlines()
        self.lines = [*(line for line in config if not line.startswith("allow_anonymous")), "log_type all"]

    def answers(self) -> bool:
        return self.accepts_tcp()  # the client id of a login is bound, so a trial login would need it


class ACLFile(_GuardedMosquitto):
    name = "mosquitto-acl_file"
    plan = "mosquitto"


class DynamicSecurity(_GuardedMosquitto):
    name = "mosquitto-dynsec"
    plan = "mosquitto-dynsec"

    def __init__(self, roster: Roster, **options: Any) -> None:
        super().__init__(roster, plugin=str(_dynamic_security()), **options)

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or (None if _dynamic_security() else "mosquitto_dynamic_security.so")


class JWTEjabberd(Guarded, Ejabberd):
    name = "ejabberd-jwt"

    def __init__(self, roster: Roster, **options: Any) -> None:
        super().__init__()
        self.roster = roster
        self.made = plan_for("ejabberd", roster, key_file=str(self.folder / "key.jwk"), **options)

    def settings(self) -> dict[str, Any]:
        key = urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")
        (self.folder / "key.jwk").write_text(json.dumps({"kty": "oct", "k": key}))
        text = self.made.files["ejabberd.yml"].partition("\n")[2]
        return {**super().settings(), "anonymous_protocol": "sasl_anon", **json.loads(text)}

    def password_of(self, login: Login) -> str:
        return issue(claims_of(self.roster, login, lifetime=600), SECRET)

    def answers(self) -> bool:
        return self.accepts_tcp()


GUARDED: list[type[ProcessBroker]] = [ACLFile, DynamicSecurity, JWTEjabberd]
"""The brokers of the attack suite."""
