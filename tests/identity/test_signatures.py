"""A signature proves who wrote a message, and every change of the message breaks the proof."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent.errors import InvalidIdentifier
from mqtt_agent.identity.keys import PrivateKey, PublicKey, TrustedKeys
from mqtt_agent.identity.signatures import SIGNATURE_PROPERTY
from mqtt_agent.identity.signing import MAX_SKEW, Identity
from mqtt_agent.transport import InboundMessage, Proof, PublishProperties
from mqtt_agent.transport.packing import pack_publish

from .signed import Content

NOW = 1_800_000_000.0
A, B = PrivateKey.new("agent-a"), PrivateKey.new("agent-b")
TRUSTED = TrustedKeys([A.public, B.public])


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def sent(key: PrivateKey = A, **about: Any) -> InboundMessage:
    """A signed message as it arrives."""
    properties = PublishProperties(
        response_topic="ns/answers",
        correlation_data=b"call-1",
        user_properties=(("traceparent", "00-1-1-01"), ("other", "1")),
        **about,
    )
    signed = Identity(key, clock=lambda: NOW).sign("ns/topic", b'{"n": 1}', properties)
    message = InboundMessage(
        "ns/topic",
        b'{"n": 1}',
        response_topic=signed.response_topic,
        correlation_data=signed.correlation_data,
        user_properties=signed.user_properties,
    )
    message.content_type = signed.content_type
    return message


def reader(trusted: TrustedKeys = TRUSTED, **options: Any) -> Identity:
    return Identity(None, trusted, **{"clock": lambda: NOW, **options})


def signature_of(message: InboundMessage) -> str:
    (text,) = (value for name, value in message.user_properties if name == SIGNATURE_PROPERTY)
    return text


def with_signature(message: InboundMessage, *texts: str) -> InboundMessage:
    others = tuple(pair for pair in message.user_properties if pair[0] != SIGNATURE_PROPERTY)
    message.user_properties = others + tuple((SIGNATURE_PROPERTY, text) for text in texts)
    return message


@pytest.mark.rule("SIG-1", "SIG-2")
def test_a_signed_message_proves_its_signer() -> None:
    assert reader().check(sent()) == Proof("agent-a", round(NOW * 1000), key_id=A.public.kid)
    assert reader().check(sent(B)).signer == "agent-b"


CHANGES: dict[str, dict[str, Any]] = {
    "the topic": {"topic": "ns/topic2"},
    "the payload": {"payload": b'{"n": 2}'},
    "the Response Topic": {"response_topic": "ns/elsewhere"},
    "no Response Topic": {"response_topic": None},
    "an empty Response Topic": {"response_topic": ""},
    "the Correlation Data": {"correlation_data": b"call-2"},
    "no Correlation Data": {"correlation_data": None},
    "the Content Type": {"content_type": "text/plain"},
    "no Content Type": {"content_type": None},
}


@pytest.mark.rule("SIG-2")
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_message_proves_nothing(change: str) -> None:
    message = sent()
    for name, value in CHANGES[change].items():
        setattr(message, name, value)
    proof = reader().check(message)
    assert proof.signer is None
    assert "or the message was changed" in proof.fault


@pytest.mark.rule("SIG-2")
def test_the_trace_context_is_signed_and_other_user_properties_are_not() -> None:
    message = sent()
    signature = signature_of(message)
    message.user_properties = (("traceparent", "00-2-2-01"), (SIGNATURE_PROPERTY, signature))
    assert reader().check(message).signer is None
    message.user_properties = (("traceparent", "00-1-1-01"), ("added", "x"), (SIGNATURE_PROPERTY, signature))
    assert reader().check(message).signer == "agent-a"


@pytest.mark.rule("SIG-2")
def test_no_part_can_be_moved_into_the_next_part() -> None:
    contents = [
        Content("ab", b"", "c"),
        Content("a", b"", "bc"),
        Content("ab", b"", "c", b""),
        Content("ab", b"", None, b"c"),
        Content("ab", b"", "", b"c"),
        Content("ab", b"", "c", None, "-"),
        Content("ab-", b"", "c"),
        Content("ab", b"", "c", user_properties=(("baggage", "xy"),)),
        Content("ab", b"", "c", user_properties=(("baggage", "x"), ("baggage", "y"))),
    ]
    assert len({each.to_bytes() for each in contents}) == len(contents)
    assert contents[0].to_bytes("agent-", nonce="an") != contents[0].to_bytes("agent-a", nonce="n")


@pytest.mark.rule("SIG-1")
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("agent-a", "agent-b"),
        lambda text: text[:-4] + "AAAA",
        lambda text: text + "=",
        lambda text: text[:-1],
        lambda text: "2" + text[1:],
        lambda text: text.replace(";", ";;", 1),
        lambda text: "",
        lambda text: "1;agent-a;0;0;x;",
        lambda text: "1;agent-a;-1;0;x;AAAA",
        lambda text: "1;agent-a;١;0;x;AAAA",
        lambda text: "1;agent-a;" + "9" * 5000 + ";0;x;AAAA",
        lambda text: ";" * 60_000,
        lambda text: text.replace("agent-a", "agent-a\ud800"),
    ],
)
def test_a_broken_signature_proves_nothing_and_raises_nothing(change: Any) -> None:
    message = sent()
    proof = reader().check(with_signature(message, change(signature_of(message))))
    assert proof.signer is None
    assert proof.fault
    assert len(proof.fault) < 400


@pytest.mark.rule("SIG-1")
def test_a_message_with_two_signatures_proves_nothing() -> None:
    message, other = sent(), sent(B)
    two = with_signature(message, signature_of(message), signature_of(other))
    assert reader().check(two) == Proof(fault="the message has more than one signature")


@pytest.mark.rule("SIG-1")
def test_a_name_with_semicolons_can_sign() -> None:
    key = PrivateKey.new("agent;1;2;3;4;5;6")
    assert reader(TrustedKeys([key.public])).check(sent(key)).signer == "agent;1;2;3;4;5;6"


@pytest.mark.rule("SIG-3")
def test_only_a_trusted_key_of_the_name_proves_the_name() -> None:
    stranger, impostor = PrivateKey.new("stranger"), PrivateKey.new("agent-a")
    assert reader().check(sent(stranger)).fault == "no key of 'stranger' is trusted"
    assert "not by a trusted key of 'agent-a'" in reader().check(sent(impostor)).fault
    unsigned = with_signature(sent())
    assert reader().check(unsigned) == Proof(fault="the message has no signature")


@pytest.mark.rule("SIG-3")
def test_an_old_and_a_new_key_of_a_name_are_both_good_while_both_are_trusted() -> None:
    new = PrivateKey.new("agent-a")
    both = reader(TrustedKeys([A.public, new.public]))
    assert [both.check(sent(key)).signer for key in (A, new)] == ["agent-a"] * 2
    assert reader(TrustedKeys([new.public])).check(sent(A)).signer is None


@pytest.mark.rule("SIG-4")
def test_clocks_may_differ_by_two_minutes_and_an_expired_message_proves_nothing() -> None:
    clock = Clock()
    identity = reader(clock=clock)
    message = sent(message_expiry=60)
    for offset, proven in ((-MAX_SKEW - 1, False), (-MAX_SKEW, True), (60 + MAX_SKEW, True), (61 + MAX_SKEW, False)):
        clock.now = NOW + offset
        assert (identity.check(message).signer == "agent-a") is proven, offset
    clock.now = NOW + 1e8
    assert identity.check(sent()).signer == "agent-a", "a message without an expiry is good for ever"


def test_the_signature_of_a_message_is_checked_once() -> None:
    message, checks = sent(), list[InboundMessage]()

    class Counted(Identity):
        def check(self, message: InboundMessage) -> Proof:
            checks.append(message)
            return super().check(message)

    message.identity = Counted(None, TRUSTED, clock=lambda: NOW)
    assert [message.signer, message.signer, message.proof.signer] == ["agent-a"] * 3
    assert checks == [message]
    assert InboundMessage("ns/topic", b"").signer is None


@pytest.mark.parametrize("expiry", [None, 60])
def test_the_size_of_a_signed_message_is_known_without_signing_it(expiry: int | None) -> None:
    class Unsigning(PrivateKey):
        def sign(self, data: bytes) -> bytes:
            raise AssertionError("nothing is to be signed")

    properties = PublishProperties("ns/answers", b"call-1", message_expiry=expiry, user_properties=(("other", "1"),))
    for name in ("agent-a", "ägent;1"):
        signed = Identity(PrivateKey.new(name)).sign("ns/topic", b"{}", properties)
        reserved = Identity(Unsigning.new(name)).reserve(properties)
        sizes = [pack_publish("ns/topic", b"{}", 1, False, each).size for each in (properties, signed)]
        assert 0 <= sizes[0] + reserved - sizes[1] <= 4


def test_signatures_are_not_checked_when_they_are_off() -> None:
    assert reader(verify="off").check(sent()).signer is None
    with pytest.raises(ValueError, match="use one of 'off', 'log', 'require'"):
        reader(verify="on")


def test_an_identity_without_a_key_signs_nothing() -> None:
    properties = PublishProperties()
    assert reader().sign("ns/topic", b"", properties) is properties
    assert reader().reserve(properties) == 0


def test_a_key_is_kept_in_a_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    path = tmp_path / "agent-a.jwk"
    A.save(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    loaded = PrivateKey.load(path)
    assert (loaded.name, loaded.public) == ("agent-a", A.public)
    assert A.public.verifies(loaded.sign(b"text"), b"text")
    with pytest.raises(FileExistsError):
        B.save(path)
    assert PrivateKey.load(path).public == A.public
    assert json.loads(path.read_text())["d"] not in repr(loaded)


def test_public_keys_are_kept_in_a_jwks_file_without_any_secret(tmp_path: Path) -> None:
    path = tmp_path / "trusted.jwks"
    TRUSTED.save(path)
    assert all("d" not in key for key in json.loads(path.read_text())["keys"])
    loaded = TrustedKeys.load(path)
    assert [loaded.of(name) for name in ("agent-a", "agent-b", "agent-c")] == [(A.public,), (B.public,), ()]
    assert Identity(None, path, clock=lambda: NOW).check(sent(B)).signer == "agent-b"


def test_a_keys_id_is_its_rfc_7638_thumbprint() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "sub": "bob"}
    assert PublicKey.from_jwk(jwk).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # RFC 8037, A.3


BAD_KEYS: dict[str, Any] = {
    "is not JSON": "{",
    "is not a JSON object": "[]",
    "does not say whose key it is": {"kty": "OKP", "crv": "Ed25519", "x": "", "d": ""},
    "is not an Ed25519 key": {"kty": "RSA", "sub": "a"},
    'has no "d"': A.public.to_jwk(),
    "32 bytes, not 3": {"kty": "OKP", "crv": "Ed25519", "d": "AAAA", "sub": "a"},
    "is not base64url": {"kty": "OKP", "crv": "Ed25519", "d": "***", "sub": "a"},
    "does not belong to": {"kty": "OKP", "crv": "Ed25519", "d": "A" * 43, "x": "B" * 43, "sub": "a"},
    "cannot be a topic level": {"kty": "OKP", "crv": "Ed25519", "d": "A" * 43, "x": "B" * 43, "sub": "a/b"},
}


@pytest.mark.parametrize("what", BAD_KEYS)
def test_a_file_that_is_no_key_is_refused_with_its_name_and_the_reason(what: str, tmp_path: Path) -> None:
    path, content = tmp_path / "bad.jwk", BAD_KEYS[what]
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=rf"(?s)bad\.jwk.*{what}"):
        PrivateKey.load(path)


def test_a_jwks_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.jwks"
    for content, what in (
        ("{}", 'has no list "keys"'),
        ('{"keys": [7]}', "key 0 cannot be used: it is not a"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=what):
            TrustedKeys.load(path)
    with pytest.raises(InvalidIdentifier):
        PrivateKey.new("a/b")
