"""Which names a signer proves, and who a message says that it is from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent.endpoints.senders import claimed_sender
from mqtt_agent.identity.keys import PrivateKey, TrustedKeys
from mqtt_agent.identity.signing import Identity
from mqtt_agent.transport import InboundMessage, PublishProperties
from mqtt_agent.wire import Topics

KEY = PrivateKey.new("host", ["weather"])
TOPICS = Topics("ns")


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
def test_a_signer_proves_its_own_names_and_those_of_its_replicas(name: str, believed: bool) -> None:
    identity = Identity(KEY)
    properties = identity.sign("topic", b"", PublishProperties())
    message = InboundMessage("topic", b"", user_properties=properties.user_properties)
    message.content_type, message.identity = properties.content_type, identity
    assert message.proves(name) is believed


def test_the_names_of_a_key_are_kept_in_its_file(tmp_path: Path) -> None:
    KEY.save(tmp_path / "host.jwk")
    TrustedKeys([KEY.public]).save(tmp_path / "trusted.jwks")
    assert PrivateKey.load(tmp_path / "host.jwk").public.names == {"weather"}
    assert [key.names for key in TrustedKeys.load(tmp_path / "trusted.jwks")] == [{"weather"}]


@pytest.mark.rule("SIG-6")
@pytest.mark.parametrize(
    ("topic", "payload", "name"),
    [
        (TOPICS.tool_call("t"), {"client": "a", "from": "x", "server": "x"}, "a"),
        (TOPICS.tool_cancel("t"), {"client": "a"}, "a"),
        (TOPICS.server_query("s"), {"client": "a"}, "a"),
        (TOPICS.client_responses("a"), {"server": "s:1"}, "s:1"),
        (TOPICS.client_responses("a"), {"call_id": "marker"}, "a"),
        (TOPICS.tool_stream("t", "c"), {"server": "s:1"}, "s:1"),
        (TOPICS.server_card("s:1"), {"server": "other"}, "s:1"),
        (TOPICS.tool_card("t"), {"server": "s"}, "s"),
        (TOPICS.tool_card("t"), b"", None),
        (TOPICS.agent_card("a"), {"name": "other"}, "a"),
        (TOPICS.agent_status("a"), {"name": "other"}, "a"),
        (TOPICS.inbox("a"), {"from": "b", "client": "x"}, "b"),
        (TOPICS.overview_inbox("a"), {"from": "b"}, "b"),
        (TOPICS.control("a"), {"from": "b"}, "b"),
        (TOPICS.results("a"), {"from": "b"}, "b"),
        (TOPICS.task_result("id"), {"from": "b"}, "b"),
        (TOPICS.task_events("id"), {"from": "b"}, "b"),
        (TOPICS.results("a"), {}, None),
        (TOPICS.inbox("a"), {"from": 7}, None),
        (TOPICS.inbox("a"), b"\xff", None),
        (TOPICS.inbox("a"), b"[]", None),
        (TOPICS.bound.call("t", "a"), {"client": "other"}, "a"),
        (TOPICS.bound.responses("a", "s:1"), {"server": "other"}, "s:1"),
        (TOPICS.bound.results("a", "b"), {"from": "other"}, "b"),
        ("ns/unknown/topic", {"from": "b"}, None),
        ("ns", {"from": "b"}, None),
    ],
)
def test_the_sender_that_must_be_proven_is_the_one_that_the_message_is_acted_upon_for(
    topic: str, payload: Any, name: str | None
) -> None:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    assert claimed_sender(TOPICS, InboundMessage(topic, data)) == name
