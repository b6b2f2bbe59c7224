"""IssuedToken: a token with what its issuer says about the token."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

__all__ = ["IssuedToken"]


@dataclass(frozen=True)
class IssuedToken:
    """A token with what a token service says about it. The function of a :class:`Token` may return it.

    Args:
        token: The token or password, which is sent in MQTT's password field. It never appears in logs, reprs or errors.
        username: The MQTT user name. None takes the ``username`` of the :class:`Token`.
        expires: When the token expires: a ``datetime`` with a time zone, or seconds since the epoch. Before that time,
            the function is asked for the next token. None takes the ``exp`` claim of a JWT.

    Raises:
        ValueError: ``expires`` has no time zone.
    """

    token: str = field(repr=False)
    username: str | None = None
    expires: datetime | float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.expires, datetime) and self.expires.tzinfo is None:
            raise ValueError("expires has no time zone: use datetime.now(timezone.utc) + timedelta(...), or seconds")
