"""Tokens with the claims of a roster."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jwt
import pytest
from mqtt_agent.errors import RosterError
from mqtt_agent.identity import claims_of, issue, roles

from .attempts import ROSTER

SECRET = "k" * 32


def test_a_token_has_the_claims_and_what_single_brokers_need() -> None:
    claims = claims_of(ROSTER, ROSTER.login("weather:1"), lifetime=60, host="mqtt.example")
    token = jwt.decode(issue(claims, SECRET, key_id="k-1"), SECRET, algorithms=["HS256"])
    role = next(role.name for role in roles(ROSTER) for login in role.logins if login.user == "weather.1")
    assert token["exp"] - token["iat"] == 60
    assert {name: token[name] for name in token if name not in ("iat", "exp", "jti")} == {
        "server_id": "weather:1",
        "tool_id": "forecast",
        "org_id": "acme",
        "sub": "weather.1",
        "username": "weather.1",
        "client_id": "weather:1",
        "jid": "weather.1@mqtt.example",
        "client_attrs": {"role": role, "server_id": "weather:1"},
    }
    assert jwt.get_unverified_header(issue(claims, SECRET, key_id="k-1"))["kid"] == "k-1"


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(RosterError, match="the secret has 5 bytes; make 32 with: openssl rand -hex 32"):
        issue({}, "short")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "nonsense"])
def test_a_key_that_does_not_fit_is_told(algorithm: str) -> None:
    with pytest.raises(RosterError, match=f"the key does not fit {algorithm}: .*; give a private key in PEM"):
        issue({}, SECRET, algorithm)


def test_a_private_key_signs(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    for options in (["-algorithm", "ed25519"],):
        key, public = tmp_path / "key.pem", tmp_path / "public.pem"
        subprocess.run(["openssl", "genpkey", *options, "-out", str(key)], check=True, capture_output=True)
        subprocess.run(
            ["openssl", "pkey", "-in", str(key), "-pubout", "-out", str(public)], check=True, capture_output=True
        )
        token = issue({"agent_id": "a"}, key.read_bytes(), "EdDSA")
        assert jwt.decode(token, public.read_bytes(), algorithms=["EdDSA"]) == {"agent_id": "a"}
