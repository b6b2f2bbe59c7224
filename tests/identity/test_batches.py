"""One signature for the messages of a turn proves each of them, and nothing else."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from mqtt_agent.identity import merkle
from mqtt_agent.identity.batches import InBatch
from mqtt_agent.identity.keys import PrivateKey, PublicKey, TrustedKeys
from mqtt_agent.identity.merkle import MAX_BATCH, Inclusion, ProvenNodes, Tree, batch_bytes, leaf_of
from mqtt_agent.identity.signatures import SIGNATURE_PROPERTY, single_text
from mqtt_agent.identity.signing import Identity
from mqtt_agent.transport import InboundMessage, PublishProperties
from mqtt_agent.transport.packing import pack_publish, pack_user_property

from .signed import Content, root_of

NOW = 1_800_000_000.0
ABOUT = PublishProperties("ns/answers", b"call-1", user_properties=(("traceparent", "00-1-1-01"),))


class CountingKey(PrivateKey):
    """Counts its signatures."""

    signatures = 0

    def sign(self, data: bytes) -> bytes:
        self.signatures += 1
        return super().sign(data)


A, B = CountingKey("agent-a", os.urandom(32)), CountingKey("agent-b", os.urandom(32))
TRUSTED = TrustedKeys([A.public, B.public])


def identity(key: PrivateKey | None = None) -> Identity:
    return Identity(key, TRUSTED, clock=lambda: NOW)


def arrived(number: int, signature: tuple[str, str]) -> InboundMessage:
    """A message of :func:`batch` as it arrives."""
    message = InboundMessage(
        f"ns/topic/{number}",
        b"%d" % number,
        response_topic=ABOUT.response_topic,
        correlation_data=ABOUT.correlation_data,
        user_properties=(*ABOUT.user_properties, signature),
    )
    message.content_type = ABOUT.content_type
    return message


def friend() -> Identity:
    """The identity of agent-a, which knows that agent-b checks signatures of batches."""
    known = identity(A)
    assert known.check(arrived(0, identity(B).sign("ns/topic/0", b"0", ABOUT).user_properties[-1])).signer == "agent-b"
    return known


def waiting(count: int) -> list[InBatch]:
    batches = friend().batches()
    assert batches is not None
    found = [batches.add(f"ns/topic/{number}", b"%d" % number, ABOUT, ["agent-b"]) for number in range(count)]
    assert all(found)
    return [each for each in found if each is not None]


def batch(count: int) -> list[InboundMessage]:
    """Messages that were signed together, as they arrive."""
    return [arrived(number, each.sign()) for number, each in enumerate(waiting(count))]


def text_of(message: InboundMessage) -> str:
    return message.user_properties[-1][1]


def with_text(message: InboundMessage, text: str) -> InboundMessage:
    message.user_properties = (*message.user_properties[:-1], (SIGNATURE_PROPERTY, text))
    return message


@pytest.mark.rule("SIG-11")
@pytest.mark.parametrize("count", range(1, MAX_BATCH + 2))
def test_each_message_of_a_batch_proves_its_signer(count: int) -> None:
    before, reader = A.signatures, identity(B)
    messages = batch(count)
    assert A.signatures - before == (1 if count <= MAX_BATCH else 2)
    for message in reversed(messages):
        assert reader.check(message).signer == "agent-a"
    versions = {text_of(message)[:2] for message in messages}
    assert versions == ({"1;"} if count == 1 else {"2;"} if count <= MAX_BATCH else {"1;", "2;"})


def test_a_batch_takes_no_message_after_its_first_has_left() -> None:
    batches = friend().batches()
    assert batches is not None
    first, second = (batches.add("ns/topic/0", b"0", ABOUT, ["agent-b"]) for _ in range(2))
    assert first is not None
    assert second is not None
    left = first.sign()
    third = batches.add("ns/topic/0", b"0", ABOUT, ["agent-b"])
    assert third is not None
    texts = [left, second.sign(), third.sign()]
    assert [identity(B).check(arrived(0, each)).signer for each in texts] == ["agent-a"] * 3
    assert [text[:2] for _, text in texts] == ["2;", "2;", "1;"]
    assert first.sign() == left


CHANGES: dict[str, Callable[[InboundMessage], None]] = {
    "the topic": lambda message: setattr(message, "topic", "ns/topic/1"),
    "the payload": lambda message: setattr(message, "payload", b"1"),
    "both": lambda message: message.__dict__.update(topic="ns/topic/1", payload=b"1"),
    "the Response Topic": lambda message: setattr(message, "response_topic", "ns/elsewhere"),
    "the Correlation Data": lambda message: setattr(message, "correlation_data", None),
    "the Content Type": lambda message: setattr(message, "content_type", None),
    "the trace context": lambda message: setattr(message, "user_properties", message.user_properties[1:]),
}


@pytest.mark.rule("SIG-11", "SIG-12")
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_message_of_a_batch_proves_nothing_also_when_the_batch_was_checked(change: str) -> None:
    reader, messages = identity(B), batch(5)
    assert all(reader.check(message).signer for message in messages)
    CHANGES[change](messages[0])
    proof = reader.check(messages[0])
    assert proof.signer is None
    assert "or the message was changed" in proof.fault


def parts_changed(**changed: str) -> Callable[[str], str]:
    names = ("version", "signer", "at", "until", "nonce", "size", "number", "path", "value")

    def change(text: str) -> str:
        return ";".join((dict(zip(names, text.split(";"), strict=True)) | changed).values())

    return change


HASH = "A" * 43
FORGERIES: dict[str, Callable[[str], str]] = {
    "another signer": parts_changed(signer="agent-b"),
    "another time": parts_changed(at="1800000000001"),
    "another expiry": parts_changed(until="1800000001000"),
    "another nonce": parts_changed(nonce="2.AAAAAAAAAAAAAAAA"),
    "another size": parts_changed(size="6"),
    "another size with the same path": parts_changed(size="8"),
    "a size of 0": parts_changed(size="0"),
    "a size of 1 without a path": parts_changed(size="1", path=""),
    "a size above the limit": parts_changed(size=str(MAX_BATCH + 1)),
    "a size of many digits": parts_changed(size="9" * 5000),
    "a negative size": parts_changed(size="-5"),
    "a size of other digits": parts_changed(size="٥"),
    "another number": parts_changed(number="2"),
    "a number that is not there": parts_changed(number="5"),
    "a number of many digits": parts_changed(number="9" * 5000),
    "no path": parts_changed(path=""),
    "a shorter path": parts_changed(path=HASH),
    "another path": parts_changed(path="A" * 128),
    "a long path": parts_changed(path="A" * 60_000),
    "a path that is not base64url": parts_changed(path="=" * 128),
    "another value": parts_changed(value="A" * 86),
    "no value": parts_changed(value=""),
    "a long value": parts_changed(value="A" * 60_000),
    "the form of a single message": lambda text: ";".join(["1", *text.split(";")[1:5], text.split(";")[-1]]),
    "a single message with a place": lambda text: "1" + text[1:],
    "a version that is not known": lambda text: "3" + text[1:],
    "only separators": lambda text: "2" + ";" * 60_000,
    "few separators": lambda text: "2;" + ";" * 6,
    "a lone surrogate": parts_changed(nonce="2.\ud800"),
}


@pytest.mark.rule("SIG-11", "SIG-12")
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_signature_of_a_batch_proves_nothing_and_raises_nothing(forgery: str) -> None:
    reader, messages = identity(B), batch(5)
    assert all(reader.check(message).signer for message in messages)
    proof = reader.check(with_text(messages[1], FORGERIES[forgery](text_of(messages[1]))))
    assert proof.signer is None
    assert 0 < len(proof.fault) < 400


@pytest.mark.rule("SIG-12")
def test_the_signature_of_one_message_of_a_batch_does_not_prove_another() -> None:
    reader, messages = identity(B), batch(4)
    texts = [text_of(message) for message in messages]
    for number, message in enumerate(messages):
        signers = [reader.check(with_text(message, text)).signer for text in texts]
        assert signers == ["agent-a" if each == number else None for each in range(4)]


@pytest.mark.rule("SIG-12")
def test_a_node_of_the_tree_is_no_message_and_a_single_message_is_no_batch() -> None:
    signed = [b"a", b"b", b"c", b"d"]
    tree = Tree(signed)
    left, right = (hashlib.sha256(b"\x01" + leaf_of(x) + leaf_of(y)).digest() for x, y in (signed[:2], signed[2:]))
    assert root_of(Inclusion(4, 0, tree.paths[0]), leaf_of(b"a")) == tree.root
    # The tree of the two nodes above the leaves has the same root. But its size is signed, and no text is a node.
    assert root_of(Inclusion(2, 0, right), left) == tree.root
    assert batch_bytes(2, tree.root) != batch_bytes(4, tree.root)
    assert leaf_of(leaf_of(b"a") + leaf_of(b"b")) != left
    for content in (Content("ns/topic", b""), Content("", b"", "")):
        assert content.to_bytes()[:19] != batch_bytes(4, tree.root)[:19]


@pytest.mark.rule("SIG-12")
@pytest.mark.parametrize("count", range(2, MAX_BATCH + 1))
def test_a_path_leads_to_the_root_only_from_its_own_place(count: int) -> None:
    tree = Tree([b"%d" % number for number in range(count)])
    for number, path in enumerate(tree.paths):
        for place in range(count):
            try:
                found = root_of(Inclusion(count, place, path), leaf_of(b"%d" % number))
            except ValueError:
                assert place != number
            else:
                assert (found == tree.root) is (place == number)


@pytest.mark.rule("SIG-3", "SIG-12")
def test_a_batch_of_a_key_that_is_not_trusted_proves_nothing() -> None:
    messages = batch(3)
    assert [Identity(None, TrustedKeys([B.public])).check(each).signer for each in messages] == [None] * 3
    other = PrivateKey.new("agent-a")
    stranger = Identity(other, TrustedKeys([A.public, B.public]), clock=lambda: NOW)
    stranger.check(arrived(0, identity(B).sign("ns/topic/0", b"0", ABOUT).user_properties[-1]))
    batches = stranger.batches()
    assert batches is not None
    found = [batches.add(f"ns/topic/{number}", b"%d" % number, ABOUT, ["agent-b"]) for number in range(3)]
    reader = identity(B)
    proofs = [reader.check(arrived(number, each.sign())) for number, each in enumerate(found) if each is not None]
    assert [each.signer for each in proofs] == [None] * 3


@pytest.mark.rule("SIG-4", "SIG-11")
def test_each_message_of_a_batch_has_its_own_time() -> None:
    batches, now = friend(), NOW
    batches._clock = lambda: now
    several = batches.batches()
    assert several is not None
    about = PublishProperties("ns/answers", b"call-1", message_expiry=60, user_properties=ABOUT.user_properties)
    short = several.add("ns/topic/0", b"0", about, ["agent-b"])
    now += 30
    long = several.add("ns/topic/1", b"1", about, ["agent-b"])
    assert short is not None
    assert long is not None
    messages = [arrived(0, short.sign()), arrived(1, long.sign())]
    for later, proven in ((0, [True, True]), (30, [True, True]), (181, [False, True]), (211, [False, False])):
        reader = Identity(B, TRUSTED, clock=lambda later=later: NOW + later)
        assert [reader.check(each).signer is not None for each in messages] == proven, later


def says_nothing(key: PrivateKey) -> InboundMessage:
    """A message of a program that knows only signatures of single messages."""
    stamps = "agent-b", round(NOW * 1000), 0, "AAAAAAAAAAAAAAAA"
    content = Content("ns/topic/0", b"0", "ns/answers", b"call-1", "application/json", ABOUT.user_properties)
    text = single_text(";".join(map(str, stamps)), key.sign(content.to_bytes(*stamps)))
    return arrived(0, (SIGNATURE_PROPERTY, text))


@pytest.mark.rule("SIG-13")
def test_only_readers_that_have_said_so_get_signatures_of_batches() -> None:
    sender = identity(A)
    batches = sender.batches()
    assert batches is not None

    def sends_batch(*readers: str) -> bool:
        return batches.add("ns/topic", b"", ABOUT, readers) is not None

    said = arrived(0, identity(B).sign("ns/topic/0", b"0", ABOUT).user_properties[-1])
    assert not sends_batch("agent-b"), "nothing is known yet"
    said.payload = b"changed"
    assert sender.check(said).signer is None
    assert not sends_batch("agent-b"), "a message that proves nothing teaches nothing"
    said.payload = b"0"
    assert sender.check(said).signer == "agent-b"
    assert sends_batch("agent-b")
    assert sends_batch("agent-b:1"), "a replica"
    assert not sends_batch("agent-b", "agent-c")
    assert not sends_batch()
    older = says_nothing(B)
    assert sender.check(older).signer == "agent-b", "messages of older programs prove their signer"
    assert not sends_batch("agent-b")
    sender.check(said)
    assert not sends_batch("agent-b"), "a captured message does not bring batches back"


@pytest.mark.rule("SIG-13")
def test_a_message_of_somebody_else_neither_brings_nor_takes_batches() -> None:
    sender, impostor = friend(), PrivateKey.new("agent-b")
    batches = sender.batches()
    assert batches is not None
    assert sender.check(says_nothing(impostor)).signer is None
    assert batches.add("ns/topic", b"", ABOUT, ["agent-b"]) is not None


def test_a_program_without_a_key_has_no_batches() -> None:
    assert Identity(None, TRUSTED).batches() is None


@pytest.mark.parametrize("name", ["agent-a", "ägent;1", "a" * 200])
@pytest.mark.parametrize("count", [1, 2, MAX_BATCH])
def test_a_signature_in_a_packet_is_never_longer_than_what_was_reserved(name: str, count: int) -> None:
    key = PrivateKey.new(name)
    sender = Identity(key, TRUSTED, clock=lambda: NOW)
    batches = sender.batches()
    sender.check(arrived(0, identity(B).sign("ns/topic/0", b"0", ABOUT).user_properties[-1]))
    assert batches is not None
    found = [batches.add("ns/topic", b"", ABOUT, ["agent-b"]) for _ in range(count)]
    packed = pack_publish("ns/topic", b"", 1, False, ABOUT)
    for each in found:
        assert each is not None
        grown = len(packed.with_id(1, pack_user_property(*each.sign()))) - packed.size
        assert grown <= each.longest


@pytest.mark.parametrize("size", [0, 20, 100, 115, 120, 127, 128, 200, 16_300, 16_384, 40_000])
@pytest.mark.parametrize("payload", [0, 100, 127, 16_384, 2_100_000])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_packet_with_a_property_added_is_the_packet_with_all_properties(size: int, payload: int, qos: int) -> None:
    about: dict[str, Any] = {"response_topic": "ns/answers", "message_expiry": 60}
    first, second = ("first", "x" * size), ("second", "ö" * 60)
    bare = pack_publish("ns/topic", bytes(payload), qos, True, PublishProperties(**about, user_properties=(first,)))
    both = PublishProperties(**about, user_properties=(first, second))
    whole = pack_publish("ns/topic", bytes(payload), qos, True, both)
    assert bare.with_id(7, pack_user_property(*second)) == whole.with_id(7)
    assert len(whole.with_id(7)) == whole.size


@pytest.mark.rule("SIG-12")
@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_a_reader_that_knows_a_batch_takes_exactly_the_places_and_paths_of_a_reader_that_does_not(count: int) -> None:
    """What is known of a tree saves hashes, and proves no other place, no other path, and no node as a leaf."""
    tree = Tree([b"%d" % number for number in range(count)])
    known: ProvenNodes = {}
    for number in random.Random(count).sample(range(count), count // 2 + 1):
        found: ProvenNodes = {}
        Inclusion(count, number, tree.paths[number]).climb(leaf_of(b"%d" % number), known, found)
        known.update(found)
    nodes = [leaf_of(b"%d" % number) for number in range(count)] + [node for node, _ in known.values()]
    paths = {*tree.paths, *(path[32:] for path in tree.paths), *(path[:-1] + b"x" for path in tree.paths)}
    for node in nodes:
        for path in paths:
            for number in range(count):
                inclusion = Inclusion(count, number, path)
                try:
                    proven = root_of(inclusion, node) == tree.root
                except ValueError:
                    proven = False
                try:
                    root = inclusion.climb(node, known, {})
                except ValueError:
                    assert not proven
                else:
                    assert (root is None or root == tree.root) is proven


def test_the_messages_of_a_batch_need_few_hashes_and_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, messages, hashes = identity(B), batch(MAX_BATCH), 0
    checks = list[bytes]()
    verifies = PublicKey.verifies
    monkeypatch.setattr(PublicKey, "verifies", lambda *args: checks.append(args[2]) or verifies(*args))

    def counted(data: bytes) -> Any:
        nonlocal hashes
        hashes += 1
        return hashlib.sha256(data)

    monkeypatch.setattr(merkle, "_sha256", counted)
    assert all(reader.check(message).signer == "agent-a" for message in messages)
    assert len(checks) == 1
    assert hashes == MAX_BATCH + MAX_BATCH - 1  # the leaves, and each node above them once
