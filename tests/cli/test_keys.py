"""The verbs of ``keys``, as a person types them."""

from __future__ import annotations

import json
import stat

from mqtt_agent.identity.keys import PrivateKey, TrustedKeys
from mqtt_agent.identity.signing import Identity
from mqtt_agent.transport import InboundMessage, PublishProperties

from .terminal import Terminal


def test_keys_are_made_trusted_and_listed(terminal: Terminal) -> None:
    for name in ("agent-a", "agent-b"):
        made = terminal.inside("keys", "new", name)
        assert made.out.strip() == f"{name}.jwk"
        assert stat.S_IMODE((terminal.home / f"{name}.jwk").stat().st_mode) == 0o600
    trusted = terminal.inside("keys", "trust", "trusted.jwks", "agent-a.jwk")
    assert trusted.out.startswith("trusted: agent-a (id ")
    terminal.inside("keys", "trust", "trusted.jwks", "agent-b.jwk", "agent-a.jwk")
    a = PrivateKey.load(terminal.home / "agent-a.jwk")
    assert len(TrustedKeys.load(terminal.home / "trusted.jwks")) == 2
    listed = terminal.inside("keys", "show", "trusted.jwks").out
    assert a.public.kid in listed
    (alone,) = terminal.inside("keys", "show", "agent-a.jwk", "--json").out.splitlines()
    assert json.loads(alone) == a.public.to_jwk(), "a secret is never shown"
    assert Identity(terminal.home / "agent-a.jwk", terminal.home / "trusted.jwks").name == "agent-a"


def test_a_roster_pins_the_tools_that_each_key_may_offer(terminal: Terminal) -> None:
    terminal.write("roster.toml", '[programs.weather]\nkind = "server"\nserves = ["forecast"]\n')
    for name in ("weather", "stranger"):
        PrivateKey.new(name).save(terminal.home / f"{name}.jwk")
    told = terminal.inside("keys", "trust", "trusted.jwks", "weather.jwk", "--roster", "roster.toml").out
    assert "may offer: forecast" in told
    [key] = TrustedKeys.load(terminal.home / "trusted.jwks")
    assert key.serves == {"forecast"}
    unknown = terminal.inside("keys", "trust", "trusted.jwks", "stranger.jwk", "--roster", "roster.toml", code=2)
    assert "has no program 'stranger'" in unknown.err


def test_an_issuer_states_which_key_a_program_has(terminal: Terminal) -> None:
    terminal.write("roster.toml", '[programs.weather]\nkind = "server"\nserves = ["forecast"]\n')
    for name in ("weather", "issuer", "stranger"):
        PrivateKey.new(name).save(terminal.home / f"{name}.jwk")
    told = terminal.inside("keys", "trust", "trusted.jwks", "--issuer", "issuer.jwk")
    assert "as an issuer of statements" in told.out
    state = ("--issuer", "issuer.jwk", "--roster", "roster.toml")
    made = terminal.inside("keys", "state", "weather.jwk", *state, "--days", "2")
    assert made.out.strip() == "weather.jwt"
    key, trusted, statement = (terminal.home / name for name in ("weather.jwk", "trusted.jwks", "weather.jwt"))
    signed = Identity(key, statement=statement).sign("ns/topic", b"{}", PublishProperties())
    message = InboundMessage("ns/topic", b"{}", user_properties=signed.user_properties)
    message.content_type = signed.content_type
    proof = Identity(None, trusted).check(message)
    assert (proof.signer, proof.serves) == ("weather", {"forecast"})
    unknown = terminal.inside("keys", "state", "stranger.jwk", *state, code=2)
    assert "has no program 'stranger'" in unknown.err
    assert (
        "is not a private key"
        in terminal.inside("keys", "state", "weather.jwk", "--issuer", "trusted.jwks", *state[2:], code=2).err
    )


def test_a_key_is_never_overwritten_and_a_bad_file_is_named(terminal: Terminal) -> None:
    terminal.inside("keys", "new", "agent-a")
    before = (terminal.home / "agent-a.jwk").read_text()
    again = terminal.inside("keys", "new", "agent-a", code=2)
    assert "a key is never overwritten" in again.err
    assert (terminal.home / "agent-a.jwk").read_text() == before
    assert "cannot be a topic level" in terminal.inside("keys", "new", "a/b", code=2).err
    terminal.write("bad.jwk", "{}")
    refused = terminal.inside("keys", "trust", "trusted.jwks", "agent-a.jwk", "bad.jwk", code=2)
    assert "bad.jwk is not a key" in refused.err
    assert not (terminal.home / "trusted.jwks").exists(), "nothing is trusted when one key is bad"
    assert "bad.jwk" in terminal.inside("keys", "show", "bad.jwk", code=2).err
