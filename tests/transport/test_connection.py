"""The connection keeps its promises while brokers refuse connections, break and come back."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from brokers import Broker, Mosquitto, password_line
from mqtt_agent.errors import (
    BrokerUnreachable,
    ConnectionLost,
    ConnectionRefused,
    PayloadTooLarge,
    QueueFull,
    TopicNotAuthorized,
    TransportError,
)
from mqtt_agent.transport import (
    NO_MATCHING_SUBSCRIBERS,
    Connection,
    InboundMessage,
    Password,
    PublishProperties,
    Token,
    Will,
)
from proxy import Proxy
from support import soon, until


class Inbox:
    """A handler that stores the messages that it receives."""

    def __init__(self) -> None:
        self.messages: list[InboundMessage] = []
        self._arrived = asyncio.Event()

    def __call__(self, message: InboundMessage) -> None:
        self.messages.append(message)
        self._arrived.set()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def have(self, count: int) -> None:
        async def wait() -> None:
            while len(self.messages) < count:
                self._arrived.clear()
                await self._arrived.wait()

        await soon(wait())


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Connection]:
    connection = Connection(url, **options)
    await soon(connection.start())
    try:
        yield connection
    finally:
        await soon(connection.stop(end_session=True))


@pytest.mark.rule("MQTT-3")
@pytest.mark.parametrize(
    "payload", ["\x7f", "\x85", "\ufdd0", "\uffff", "\U0010ffff", "\u00e9 \u4e2d \U0001f600"], ids=ascii
)
async def test_text_that_some_brokers_do_not_take_for_text_arrives(
    payload: str, broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as connection:
        await connection.subscribe(f"{namespace}/text", inbox)
        await soon(connection.publish(f"{namespace}/text", payload.encode()))
        await inbox.have(1)
        assert inbox.payloads == [payload.encode()]
        assert connection.epoch == 1


async def test_a_message_arrives_with_its_properties(broker: Broker, namespace: str) -> None:
    inbox = Inbox()
    async with connected(broker.url) as connection:
        await connection.subscribe(f"{namespace}/+", inbox)
        await connection.publish(
            f"{namespace}/a",
            b"{}",
            properties=PublishProperties(
                response_topic="r/t", correlation_data=b"\x00\xff", message_expiry=60, user_properties=(("k", "v"),)
            ),
        )
        await inbox.have(1)
    [message] = inbox.messages
    assert (message.topic, message.payload, message.qos) == (f"{namespace}/a", b"{}", 1)
    assert (message.response_topic, message.correlation_data) == ("r/t", b"\x00\xff")
    assert message.user_properties == (("k", "v"),)
    if broker.keeps_shared_messages:  # otherwise an expired message would stop its share group
        assert message.message_expiry is not None
        assert 0 < message.message_expiry <= 60


async def test_a_retained_message_arrives_only_where_a_snapshot_is_wanted(mosquitto: Mosquitto, namespace: str) -> None:
    without, snapshot = Inbox(), Inbox()
    async with connected(mosquitto.url) as connection, connected(mosquitto.url) as other:
        await connection.publish(namespace, b"retained", retain=True)
        await other.subscribe(namespace, without)
        await connection.subscribe(namespace, snapshot, snapshot=True)
        await snapshot.have(1)
        await connection.publish(namespace, b"live")
        await without.have(1)
        await snapshot.have(2)
        await connection.publish(namespace, b"", retain=True)
    assert [(message.payload, message.retain) for message in snapshot.messages[:2]] == [
        (b"retained", True),
        (b"live", False),
    ]
    assert without.payloads[0] == b"live"


async def test_thousands_of_messages_keep_their_order(broker: Broker, namespace: str) -> None:
    inbox = Inbox()
    async with connected(broker.url) as sender, connected(broker.url) as receiver:
        await receiver.subscribe(namespace, inbox)
        for first in range(0, 3000, 300):  # brokers drop messages when too many wait for one client
            await soon(asyncio.gather(*(sender.publish(namespace, b"%d" % n) for n in range(first, first + 300))), 30)
            await inbox.have(first + 300)
    assert inbox.payloads == [b"%d" % n for n in range(3000)]


async def test_messages_of_all_lengths_arrive_whole(broker: Broker, namespace: str) -> None:
    # MQTT encodes the length of a packet in one byte up to 127, in two bytes up to 16,383.
    sizes = [*range(128), *range(16_300, 16_384)]
    inbox = Inbox()
    async with connected(broker.url) as connection:
        await connection.subscribe(namespace, inbox)
        for batch in (sizes[:128], *([size] for size in sizes[128:])):  # brokers drop messages when too many wait
            before = len(inbox.messages)
            await soon(asyncio.gather(*(connection.publish(namespace, b"x" * size) for size in batch)))
            await inbox.have(before + len(batch))
    assert [len(payload) for payload in inbox.payloads] == sizes


async def test_a_large_message_arrives_whole(broker: Broker, namespace: str) -> None:
    inbox = Inbox()
    payload = b"0123456789abcdef" * 256 * 1024  # text, as the Payload Format Indicator says: brokers may check it
    async with connected(broker.url) as connection:
        await connection.subscribe(namespace, inbox)
        await soon(connection.publish(namespace, payload))
        await inbox.have(1)
    assert inbox.messages[0].payload == payload


async def test_a_broker_that_is_not_there_is_one_error_that_names_the_url(url_of_nobody: str) -> None:
    with pytest.raises(BrokerUnreachable, match=url_of_nobody):
        await soon(Connection(url_of_nobody).start())


async def test_an_unknown_host_name_is_one_error_that_says_so() -> None:
    with pytest.raises(BrokerUnreachable, match=r"nowhere\.invalid.*the host name is not known"):
        await soon(Connection("mqtt://nowhere.invalid").start())


async def test_something_that_accepts_but_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BrokerUnreachable, match="sent no MQTT answer within 0.3 s"):
            await soon(Connection(url, connect_timeout=0.3).start())


async def test_a_server_that_speaks_something_else_is_no_broker() -> None:
    async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_http, "127.0.0.1", 0)
    async with server:
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TransportError, match=url):
            await soon(Connection(url, connect_timeout=2).start())


async def test_a_wrong_password_is_refused_with_the_reason(make_mosquitto: Callable[..., Mosquitto]) -> None:
    broker = make_with_password(make_mosquitto)
    with pytest.raises(ConnectionRefused, match="(?i)not authorized") as caught:
        await soon(Connection(broker.url, credentials=Password("user", "wrong")).start())
    assert caught.value.reason_code == 0x87
    assert "wrong" not in str(caught.value)


async def test_passwords_and_tokens_are_accepted_wherever_they_come_from(
    make_mosquitto: Callable[..., Mosquitto],
) -> None:
    broker = make_with_password(make_mosquitto)
    asked: list[int] = []

    async def token() -> str:
        asked.append(1)
        return "secret"

    for credentials in (Password("user", "secret"), Token("secret", "user"), Token(token, "user")):
        async with connected(broker.url, credentials=credentials) as connection:
            assert connection.connected
    async with connected(broker.url.replace("//", "//user:secret@")) as connection:
        assert "secret" not in repr(connection)
    assert asked == [1]


def make_with_password(make_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    return make_mosquitto(
        ["password_file {folder}/passwords"],
        anonymous=False,
        files={"passwords": password_line("user", "secret")},
        credentials={"username": "user", "password": "secret"},
    )


async def test_a_forbidden_topic_is_not_authorized(make_mosquitto: Callable[..., Mosquitto]) -> None:
    broker = make_mosquitto(["acl_file {folder}/acl"], files={"acl": "topic readwrite free/#\n"})
    async with connected(broker.url) as connection:
        assert await soon(connection.publish("free/a", b"x")) in (0, NO_MATCHING_SUBSCRIBERS)
        with pytest.raises(TopicNotAuthorized, match="secret/a") as caught:
            await soon(connection.publish("secret/a", b"x"))
        assert caught.value.topic == "secret/a"
        assert connection.connected


@pytest.mark.rule("LOST-5")
async def test_a_publish_that_nobody_hears_says_so_where_the_broker_tells(mosquitto: Mosquitto, namespace: str) -> None:
    async with connected(mosquitto.url) as connection:
        assert await soon(connection.publish(namespace, b"x")) == NO_MATCHING_SUBSCRIBERS


@pytest.mark.rule("LIMIT-8")
async def test_more_than_the_broker_takes_is_refused_here_and_the_connection_lives(
    make_mosquitto: Callable[..., Mosquitto],
) -> None:
    broker = make_mosquitto(["max_packet_size 2000"])
    async with connected(broker.url) as connection:
        with pytest.raises(PayloadTooLarge, match="Maximum Packet Size 2,000"):
            await connection.publish("t", b"x" * 2000)
        long = PublishProperties(user_properties=(("baggage", "x" * 2000),))
        with pytest.raises(PayloadTooLarge):
            await connection.publish("t", b"", properties=long)
        await soon(connection.publish("t", b"x" * 1500))


async def test_a_limit_on_what_may_wait_is_kept(broker: Broker, namespace: str) -> None:
    async with Proxy(broker.url) as proxy, connected(proxy.url, max_queued=10) as connection:
        await proxy.cut()
        await until(lambda: not connection.connected)
        waiting = [connection.publish_soon(namespace, b"x") for _ in range(10)]
        with pytest.raises(QueueFull):
            connection.publish_soon(namespace, b"x")
        await proxy.mend()
        await soon(asyncio.gather(*waiting))


@pytest.mark.rule("SESSION-4")
async def test_what_is_published_while_the_network_is_away_arrives_when_it_is_back(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as receiver, Proxy(broker.url) as proxy, connected(proxy.url) as sender:
        await receiver.subscribe(namespace, inbox)
        await proxy.cut()
        sending = asyncio.gather(*(sender.publish(namespace, b"%d" % n) for n in range(50)))
        await until(lambda: not sender.connected)
        await proxy.mend()
        await soon(sending)
        await inbox.have(50)
    assert list(dict.fromkeys(inbox.payloads)) == [b"%d" % n for n in range(50)]


async def test_a_message_that_its_sender_gave_up_is_not_sent_after_the_reconnect(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as receiver, Proxy(broker.url) as proxy, connected(proxy.url) as sender:
        await receiver.subscribe(namespace, inbox)
        await proxy.cut()
        await until(lambda: not sender.connected)
        sender.publish_soon(namespace, b"given up").cancel()
        wanted = sender.publish_soon(namespace, b"wanted")
        await proxy.mend()
        await soon(wanted)
        await inbox.have(1)
    assert inbox.payloads == [b"wanted"]


@pytest.mark.rule("SESSION-1")
async def test_what_was_sent_to_us_while_we_were_away_arrives_after_the_reconnect(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as sender, Proxy(broker.url) as proxy, connected(proxy.url) as receiver:
        await receiver.subscribe(namespace, inbox)
        await proxy.cut()
        await until(lambda: not receiver.connected)
        for n in range(20):
            await soon(sender.publish(namespace, b"%d" % n))
        await proxy.mend()
        await inbox.have(20)
    assert sorted(inbox.payloads, key=int) == [b"%d" % n for n in range(20)]
    assert inbox.payloads == sorted(inbox.payloads, key=int) or not broker.repeats_in_order


async def test_the_last_line_of_the_log_says_that_the_connection_is_back(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async with Proxy(broker.url) as proxy, connected(proxy.url) as connection:
        await proxy.cut()
        await until(lambda: not connection.connected)
        await proxy.mend()
        await until(lambda: connection.connected)
        await until(lambda: "again after" in caplog.text)
    assert re.search(rf"connected to {connection.url} again after \d+\.\d s$", caplog.records[-1].getMessage())
    assert caplog.records[-1].levelname == "WARNING"
    assert caplog.records[0].getMessage().endswith("; reconnecting")


async def test_a_broker_that_is_down_is_an_error_that_says_what_to_do(url_of_nobody: str) -> None:
    says = (
        "no MQTT broker answers at .*: no program listens at this port .*; start a broker there, "
        "for example with 'mqtt-agent broker', or check the host"
    )
    with pytest.raises(BrokerUnreachable, match=says):
        await soon(Connection(url_of_nobody).start())


@pytest.mark.rule("CALL-13")
async def test_an_unacknowledged_message_comes_again_and_a_late_acknowledgement_hurts_nobody(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as sender, Proxy(broker.url) as proxy, connected(proxy.url) as receiver:
        await receiver.subscribe(namespace, inbox, manual=True)
        await soon(sender.publish(namespace, b"work"))
        await inbox.have(1)
        proxy.drop()
        await inbox.have(2)
        inbox.messages[0].acknowledge()  # of the connection before: must not count for this connection
        proxy.drop()
        await inbox.have(3)
        inbox.messages[2].acknowledge()
        inbox.messages[2].acknowledge()
        await soon(sender.publish(namespace, b"more"))
        await inbox.have(4)
    assert inbox.payloads == [b"work", b"work", b"work", b"more"]
    assert inbox.messages[1].duplicate or not broker.marks_repeats


@pytest.mark.rule("SESSION-5")
async def test_acknowledgements_out_of_order_do_not_cost_the_connection(broker: Broker, namespace: str) -> None:
    inbox = Inbox()
    async with Proxy(broker.url) as proxy, connected(proxy.url) as connection:
        await connection.subscribe(namespace, inbox, manual=True)
        for n in range(8):
            await soon(connection.publish(namespace, b"%d" % n))
        await inbox.have(8)
        for message in reversed(inbox.messages):
            message.acknowledge()
        await soon(connection.publish(namespace, b"after"))
        await inbox.have(9)
        assert proxy.connections == 1


@pytest.mark.rule("CALL-14")
async def test_long_work_does_not_use_up_the_window_of_the_broker(broker: Broker, namespace: str) -> None:
    inbox = Inbox()

    def start_work(message: InboundMessage) -> None:
        message.work_started()
        inbox(message)

    async with connected(broker.url) as sender, connected(broker.url) as receiver:
        await receiver.subscribe(namespace, start_work, manual=True)
        await soon(asyncio.gather(*(sender.publish(namespace, b"%d" % n) for n in range(150))))
        await inbox.have(150)


@pytest.mark.rule("CALL-14")
async def test_work_that_has_not_started_comes_again_after_a_reconnect(mosquitto: Mosquitto, namespace: str) -> None:
    inbox, marker = Inbox(), Inbox()
    options = {"receive_maximum": 30, "max_unacknowledged": 10}
    async with connected(mosquitto.url) as sender, Proxy(mosquitto.url) as proxy:
        async with connected(proxy.url, **options) as receiver:
            await receiver.subscribe(namespace, inbox, manual=True)
            await receiver.subscribe(f"{namespace}/marker", marker, qos=0)
            await soon(asyncio.gather(*(sender.publish(namespace, b"%d" % n) for n in range(40))))
            await soon(sender.publish(f"{namespace}/marker", b""))
            await marker.have(1)
            assert len(inbox.messages) == 30, "the broker waits for acknowledgements"
            proxy.drop()
            await inbox.have(60)
            assert all(message.duplicate for message in inbox.messages[30:])


@pytest.mark.rule("SESSION-3", "SESSION-4")
async def test_a_broker_that_was_killed_and_lost_everything_is_served_again(own_broker: Broker, namespace: str) -> None:
    inbox = Inbox()
    sessions: list[bool] = []

    async def on_reconnected(session_present: bool) -> None:
        sessions.append(session_present)

    async with connected(own_broker.url) as connection:
        connection.on_reconnected.append(on_reconnected)
        await connection.subscribe(namespace, inbox)
        own_broker.restart(keep_state=False, kill=True)
        await soon(connection.publish(namespace, b"again"))
        await inbox.have(1)
        await until(lambda: sessions == [False])


@pytest.mark.rule("PRES-2")
async def test_the_will_is_published_after_its_delay_and_not_after_a_blip(broker: Broker, namespace: str) -> None:
    inbox = Inbox()
    async with connected(broker.url) as watcher, Proxy(broker.url) as proxy:
        await watcher.subscribe(f"{namespace}/will", inbox)
        dying = Connection(proxy.url, will_delay=1 + broker.wills_come_early)
        dying.claim_will(Will(f"{namespace}/will", lambda: b"gone"))
        await soon(dying.start())
        proxy.drop()
        await until(lambda: proxy.connections == 2 and dying.connected)
        await soon(dying.publish(f"{namespace}/will", b"still here"))
        await inbox.have(1)
        await proxy.cut()
        await inbox.have(2)
        assert inbox.payloads == [b"still here", b"gone"]
        await soon(dying.stop())


@pytest.mark.rule("SESSION-9")
@pytest.mark.parametrize("ends", ["stopped", "killed"])
async def test_a_resumed_session_gets_the_retained_messages_of_subscriptions_that_it_had_already(
    broker: Broker, namespace: str, ends: str
) -> None:
    early, late, plain = f"{namespace}/early/+", f"{namespace}/late/+", f"{namespace}/plain/+"
    name_of_both = namespace.replace("/", "-")
    before, told = Inbox(), {each: Inbox() for each in (early, late, plain)}
    async with connected(broker.url) as publisher, Proxy(broker.url) as proxy:
        for name in ("early", "late", "plain"):
            await soon(publisher.publish(f"{namespace}/{name}/a", name.encode(), retain=True))
        first = Connection(proxy.url, client_id=name_of_both, will_delay=0)
        await soon(first.start())
        for each in told:
            await first.subscribe(each, before, qos=0, snapshot=True)  # QoS 0 leaves nothing in the session
        await before.have(3)
        if ends == "stopped":
            await soon(first.stop())
        else:
            await proxy.cut()
        second = Connection(broker.url, client_id=name_of_both, will_delay=0)
        await second.subscribe(early, told[early], qos=0, snapshot=True)
        await second.subscribe(plain, told[plain], qos=0)
        await soon(second.start())
        assert second.session_present
        await second.subscribe(late, told[late], qos=0, snapshot=True)
        await told[early].have(1)
        await told[late].have(1)
        await second.subscribe(late, told[early], qos=0, snapshot=True)  # a second handler gets them too
        await told[early].have(2)
        await soon(publisher.publish(f"{namespace}/plain/a", b"live"))
        await told[plain].have(1)
        assert {message.payload for message in told[early].messages} == {b"early", b"late"}
        assert told[plain].payloads == [b"live"]
        await soon(second.stop(end_session=True))
        await soon(first.stop(end_session=True))


async def test_a_connection_has_one_will(namespace: str) -> None:
    connection = Connection("mqtt://localhost")
    connection.claim_will(Will(namespace, lambda: b""))
    with pytest.raises(ValueError, match="connection of its own"):
        connection.claim_will(Will(namespace, lambda: b""))


async def test_several_users_share_a_connection_and_the_last_one_closes_it(broker: Broker, namespace: str) -> None:
    connection = Connection(broker.url)
    await soon(connection.start())
    await soon(connection.start())
    await soon(connection.stop())
    await soon(connection.publish(namespace, b"x"))
    await soon(connection.stop())
    with pytest.raises(ConnectionLost, match="start the endpoint first"):
        await connection.publish(namespace, b"x")


async def test_a_shared_connection_that_has_failed_does_not_start_for_another_user(broker: Broker) -> None:
    connection = Connection(broker.url)
    await soon(connection.start())
    connection.give_up(ConnectionLost("given up"))
    with pytest.raises(ConnectionLost, match="given up"):
        await soon(connection.start())
    await soon(connection.stop())
    await soon(connection.start())
    assert connection.connected
    await soon(connection.stop())


async def test_two_handlers_of_one_filter_both_get_the_message_until_one_leaves(broker: Broker, namespace: str) -> None:
    one, two = Inbox(), Inbox()
    async with connected(broker.url) as connection:
        await connection.subscribe(namespace, one)
        await connection.subscribe(namespace, two)
        await connection.publish(namespace, b"1")
        await two.have(1)
        await connection.unsubscribe(namespace, one)
        await connection.publish(namespace, b"2")
        await two.have(2)
    assert one.payloads == [b"1"]


async def test_a_handler_that_raises_stops_nobody(broker: Broker, namespace: str) -> None:
    inbox = Inbox()

    def broken(message: InboundMessage) -> None:
        raise RuntimeError("a bug")

    async with connected(broker.url) as connection:
        await connection.subscribe(namespace, broken)
        await connection.subscribe(namespace, inbox)
        for n in range(30):
            await soon(connection.publish(namespace, b"%d" % n))
        await inbox.have(30)


async def test_a_connection_that_is_silently_dead_is_noticed_by_keep_alive(broker: Broker) -> None:
    async with Proxy(broker.url) as proxy, connected(proxy.url, keep_alive=1) as connection:
        proxy.hold()
        await until(lambda: not connection.connected, 15)
        proxy.release()
        await until(lambda: connection.connected)


async def test_without_a_way_to_watch_sockets_the_loop_is_bridged_by_a_thread(
    broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_here(*args: Any) -> None:
        raise NotImplementedError

    loop = asyncio.get_running_loop()
    inbox = Inbox()
    async with connected(broker.url) as sender:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "add_reader", not_here)  # as with the proactor event loop on Windows
            receiver = Connection(broker.url)
            starting = asyncio.ensure_future(receiver.start())
            await asyncio.wait([starting], timeout=0)
            await until(lambda: starting.done() or receiver.connected)
        await soon(starting)
        await receiver.subscribe(namespace, inbox)
        for n in range(20):
            await soon(sender.publish(namespace, b"%d" % n))
        await inbox.have(20)
        await soon(receiver.stop())
