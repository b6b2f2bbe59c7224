"""Reads the logins that a token service answers with."""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, cast

from mqtt_agent.transport.credentials import IssuedToken

__all__ = ["HeldLogin", "read_login"]

_RENEW_AT, _MARGIN = 0.25, 1.5
"""A login is given again while it has more than this share of its life left, and more than these seconds."""


@dataclass(frozen=True)
class HeldLogin:
    """A login, and what is needed to refresh it.

    Attributes:
        issued: The login.
        expires: When the login expires, in seconds since the epoch.
        renew_at: From when on the login is refreshed before it is given again, in seconds since the epoch.
        token_id: The id under which the service refreshes the login; None when the service has given none.
        proof: The secret that the service asks for when it refreshes the login.
    """

    issued: IssuedToken
    expires: float
    renew_at: float
    token_id: str | None
    proof: str = field(repr=False)


def read_login(body: bytes) -> HeldLogin:
    """Read an answer.

    Raises:
        ValueError: Something is missing. The message contains nothing of the answer.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    login = _member(answer, "mqtt_credentials")
    username, password = _text(login, "username"), _text(login, "password")
    if username is None or password is None:
        raise ValueError("mqtt_credentials has no username or no password")
    expires = _expiry(_member(answer, "expires_at"))
    left = max(expires - time.time(), 0.0)
    issued = IssuedToken(password, username, expires)
    renew_at = expires - max(_RENEW_AT * left, _MARGIN)
    return HeldLogin(issued, expires, renew_at, _text(answer, "token_id"), _text(answer, "access_token") or password)


def _member(value: Any, name: str) -> Any:
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None


def _text(value: Any, name: str) -> str | None:
    text = _member(value, name)
    return text if isinstance(text, str) and text else None


def _expiry(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            if math.isfinite(value):
                return float(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError, OverflowError):
            when = datetime.fromisoformat(f"{value[:-1]}+00:00" if value[-1:] in ("Z", "z") else value)
            return (when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)).timestamp()
    raise ValueError("expires_at is missing, or is no time")
