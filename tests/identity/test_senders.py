"""Whether a message is believed to be by the sender that it names."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from mqtt_agent.endpoints.senders import Senders
from mqtt_agent.identity.keys import PrivateKey, TrustedKeys
from mqtt_agent.identity.signing import Identity
from mqtt_agent.transport import InboundMessage, PublishProperties, Verify

KEY = PrivateKey.new("host", ["weather"])


def message(identity: Identity | None, *, signed: bool = True) -> InboundMessage:
    properties = PublishProperties()
    if signed:
        properties = Identity(KEY).sign("topic", b"", properties)
    made = InboundMessage("topic", b"", user_properties=properties.user_properties)
    made.content_type, made.identity = properties.content_type, identity
    return made


@pytest.mark.rule("SIG-3")
@pytest.mark.parametrize(
    ("name", "believed"),
    [
        ("host", True),
        ("host:1", True),
        ("weather", True),
        ("weather:replica-2", True),
        ("hos", False),
        ("host2", False),
        ("host2:1", False),
        ("other", False),
        (":host", False),
        ("", False),
    ],
)
def test_a_signer_is_believed_under_its_own_names_and_those_of_its_replicas(name: str, believed: bool) -> None:
    identity = Identity(None, TrustedKeys([KEY.public]), verify="require")
    assert (Senders(identity, "me").refusal(message(identity), name) is None) is believed


@pytest.mark.parametrize("verify", [None, *get_args(Verify)])
def test_an_unproven_sender_is_refused_only_where_proof_is_required_and_told_once_where_it_is_wanted(
    verify: Verify | None, caplog: pytest.LogCaptureFixture
) -> None:
    identity = None if verify is None else Identity(None, TrustedKeys([KEY.public]), verify=verify)
    senders = Senders(identity, "me")
    refusals = [senders.refusal(message(identity, signed=False), "host") for _ in range(3)]
    assert [refusal is not None for refusal in refusals] == [verify == "require"] * 3
    assert senders.required is (verify == "require")
    told = [record.getMessage() for record in caplog.records]
    if verify in ("log", "require"):
        assert len(told) == 1
        assert "nothing proves that 'host' is the sender: the message has no signature" in told[0]
    else:
        assert told == []


def test_the_log_stays_short_when_somebody_makes_up_names(caplog: pytest.LogCaptureFixture) -> None:
    identity = Identity(None, TrustedKeys([KEY.public]), verify="log")
    senders = Senders(identity, "me")
    for number in range(1500):
        senders.refusal(message(identity, signed=False), f"name-{number}")
    assert len(caplog.records) == 1000


def test_the_names_of_a_key_are_kept_in_its_file(tmp_path: Path) -> None:

    KEY.save(tmp_path / "host.jwk")
    TrustedKeys([KEY.public]).save(tmp_path / "trusted.jwks")
    assert PrivateKey.load(tmp_path / "host.jwk").public.names == {"weather"}
    assert [key.names for key in TrustedKeys.load(tmp_path / "trusted.jwks")] == [{"weather"}]
