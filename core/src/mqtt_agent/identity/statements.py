"""Statements: an issuer says, in a JSON Web Token, which key a program has, so that its key need not be pinned."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mqtt_agent.display.suggestions import counted
from mqtt_agent.identity.keys import PrivateKey, PublicKey
from mqtt_agent.identity.signatures import decode_base64, encode_base64

if TYPE_CHECKING:
    from mqtt_agent.identity.roster import Roster

__all__ = ["STATEMENT_AUDIENCE", "STATEMENT_PROPERTY", "Statement", "Statements", "make_statement"]

STATEMENT_PROPERTY: str = "mqtt-agent-statement"
"""The name of the MQTT user property that carries the statement about the key that has signed a message (ours)."""

STATEMENT_AUDIENCE: str = "mqtt-agent-statement"
"""The claim ``aud`` of every statement, so that a token for a broker or a service is never one (ours)."""

_ALGORITHM = "EdDSA"
_LONGEST = 8192  # characters
_MOST_KEPT = 1000


@dataclass(frozen=True)
class Statement:
    """What an issuer says about a key.

    Attributes:
        key: The key, with the names that it proves and the tools that its owner may offer.
        not_before: When the statement begins to hold, in seconds since 1970.
        expires_at: When the statement ends, in seconds since 1970.
        text: The JSON Web Token.
    """

    key: PublicKey
    not_before: float
    expires_at: float
    text: str

    @classmethod
    def read(cls, text: str, signer: str | None = None) -> Statement:
        """Read a statement, without checking who has issued it.

        Args:
            text: The JSON Web Token.
            signer: The name for which the key is wanted; None means the first name of the statement.

        Raises:
            ValueError: The text is no statement, or does not name the signer.
        """
        _, claims = _parts(text)
        if claims.get("aud") != STATEMENT_AUDIENCE:
            raise ValueError(f"its audience is not {STATEMENT_AUDIENCE!r}: it was issued for something else")
        names = [*_names(claims.get("agent_id")), *_names(claims.get("server_id"))]
        if not names:
            raise ValueError("it names nobody: it needs the claim agent_id or server_id")
        name = names[0] if signer is None else signer
        if name not in names:
            raise ValueError(f"it is about {', '.join(names)[:80]}")
        jwk = _object(_object(claims.get("cnf")).get("jwk"))
        if not jwk:
            raise ValueError("it has no key in cnf.jwk")
        bare = PublicKey.from_jwk({**{part: jwk.get(part) for part in ("kty", "crv", "x")}, "sub": name})
        ends, begins = _time(claims.get("exp")), _time(claims.get("nbf", claims.get("iat", 0)))
        others = [each for each in names if each != name]
        key = PublicKey(name, bare.data, others, _names(claims.get("tool_id")))
        return cls(key, begins, ends, text)


class Statements:
    """The statements of issuers that are trusted. What was read once is kept, because each message may carry one.

    Args:
        issuers: The public keys of the issuers.
    """

    def __init__(self, issuers: Iterable[PublicKey]) -> None:
        self._issuers = {key.kid: key for key in issuers}
        self._kept: OrderedDict[tuple[str, str], Statement] = OrderedDict()

    def read(self, text: str, signer: str, now: float, skew: float) -> Statement:
        """The statement in a message.

        Args:
            text: The value of the user property.
            signer: The name that has signed the message.
            now: The time, in seconds since 1970.
            skew: How many seconds the clocks of two computers may differ.

        Raises:
            ValueError: No trusted issuer has made it, it is not about the signer, or it does not hold now.
        """
        statement = self._kept.get((text, signer)) or self._verified(text, signer)
        if now > statement.expires_at + skew:
            raise ValueError(f"it ended {now - statement.expires_at:,.0f} s ago")
        if now < statement.not_before - skew:
            raise ValueError(f"it begins in {statement.not_before - now:,.0f} s: set the clocks of both computers")
        return statement

    def _verified(self, text: str, signer: str) -> Statement:
        header, _ = _parts(text)
        kid = header.get("kid")
        issuer = self._issuers.get(kid) if isinstance(kid, str) else None
        if issuer is None:
            raise ValueError("no key of its issuer is trusted")
        signed, _, signature = text.rpartition(".")
        # The algorithm is fixed, whatever the header says, and no address in the header is ever followed.
        if (
            header.get("alg") != _ALGORITHM
            or "crit" in header
            or not issuer.verifies(decode_base64(signature), signed.encode())
        ):
            raise ValueError("its issuer has not signed it, or it was changed")
        statement = Statement.read(text, signer)
        self._kept[text, signer] = statement  # only what a trusted issuer has signed takes a place
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return statement


def make_statement(key: PublicKey, issuer: PrivateKey, roster: Roster, *, now: float, lifetime: float) -> str:
    """State that a program of a roster has a key.

    Args:
        key: The key of the program, with its name.
        issuer: The private key of the issuer.
        roster: Says what the program is, and which tools it may offer.
        now: The time, in seconds since 1970.
        lifetime: Seconds for which the statement holds.

    Raises:
        ValueError: The roster has no program of this name, or the program has too many tools.
    """
    program = next((each for each in roster.programs if each.name == key.name), None)
    if program is None:
        raise ValueError(f"{roster.source} has no program {key.name!r}: add the program to the roster")
    hosted = None if program.hosts is None else program.hosts.partition(":")[0]
    claims: dict[str, Any] = {
        "iss": issuer.name,
        "aud": STATEMENT_AUDIENCE,
        "iat": int(now),
        "exp": int(now + lifetime),
        "agent_id": None if program.kind == "server" else program.name,
        "server_id": program.name if program.kind == "server" else hosted,
        "tool_id": list(program.serves) or None,
        "user_id": program.user_id,
        "org_id": roster.org_id,
        "cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": encode_base64(key.data)}},
    }
    header = {"alg": _ALGORITHM, "typ": "JWT", "kid": issuer.public.kid}
    body = {name: value for name, value in claims.items() if value is not None}
    signed = ".".join(encode_base64(json.dumps(part, separators=(",", ":")).encode()) for part in (header, body))
    statement = f"{signed}.{encode_base64(issuer.sign(signed.encode()))}"
    if len(statement) > _LONGEST:
        tools = counted(len(program.serves), "tool")
        what = f"a statement about {key.name!r} and its {tools} has {len(statement):,} characters"
        raise ValueError(f"{what}, and nobody reads more than {_LONGEST:,}: trust its key itself (keys trust)")
    return statement


def _parts(text: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The header and the claims of a JSON Web Token."""
    if len(text) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} characters")
    parts = text.split(".")
    if len(parts) != 3:
        raise ValueError("it is no JSON Web Token")
    try:
        header, claims = (json.loads(decode_base64(part)) for part in parts[:2])
    except (ValueError, RecursionError) as error:
        raise ValueError("it is no JSON Web Token") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("it is no JSON Web Token")
    return cast("dict[str, Any]", header), cast("dict[str, Any]", claims)


def _names(claim: object) -> list[str]:
    """The names of a claim, which may be one name, or a list of names."""
    if claim is None:
        return []
    names = [claim] if isinstance(claim, str) else claim
    if not isinstance(names, list) or not all(isinstance(each, str) for each in cast("list[object]", names)):
        raise ValueError("a claim is neither a name nor a list of names")
    return cast("list[str]", names)


def _time(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e12:
        raise ValueError("it does not say when it ends: it needs the claim exp, in seconds since 1970")
    return float(value)


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
