"""Tracing: one trace leads from the caller over the broker into the handler, and no call fails because of tracing."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import mqtt_agent.sync
import pytest
from brokers import Broker
from mqtt_agent import ServerCard, ToolCard, ToolError, metering
from mqtt_agent.errors import CallCanceled, CallTimeout, InvalidArguments, ToolFailed, ToolUnavailable
from mqtt_agent.tools import measuring, tracing
from mqtt_agent.transport import Connection, InboundMessage, PublishProperties
from mqtt_agent.wire import Call, Response, ToolAnnotations, Topics, decode, encode
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from skips import inapplicable
from support import soon

from .conftest import MakeClient, MakeServer

PROGRAM = Path(__file__).parents[1] / "programs" / "tracing_server.py"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"

exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("tests")


class Spans:
    """The spans that have ended in this test."""

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in exporter.get_finished_spans() if span.name == name]

    def one(self, name: str, kind: SpanKind = SpanKind.INTERNAL) -> ReadableSpan:
        [span] = [span for span in self.named(name) if span.kind is kind]
        return span

    def client(self, tool: str) -> ReadableSpan:
        return self.one(f"tools/call {tool}", SpanKind.CLIENT)

    def server(self, tool: str) -> ReadableSpan:
        return self.one(f"tools/call {tool}", SpanKind.SERVER)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    # A provider stays set for all later tests of this process; programs in other processes set their own.
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("mqtt_agent"))
    exporter.clear()
    return Spans()


@pytest.fixture
async def connection(broker: Broker) -> AsyncIterator[Connection]:
    made = Connection(broker.url)
    await soon(made.start())
    yield made
    await soon(made.stop(end_session=True))


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def assert_chain(*chain: ReadableSpan) -> None:
    """Each span is the parent of the next one, in one trace."""
    for parent, child in itertools.pairwise(chain):
        assert parent.context is not None
        assert child.context is not None
        assert child.parent is not None
        assert child.context.trace_id == parent.context.trace_id
        assert child.parent.span_id == parent.context.span_id


def add_handlers(server: Any) -> None:
    @server.tool
    async def in_loop() -> str:
        with tracer.start_as_current_span("inside"):
            return threading.current_thread().name

    @server.tool
    def in_thread() -> str:
        with tracer.start_as_current_span("inside"):
            return threading.current_thread().name


@pytest.mark.rule("TRACE-1")
@pytest.mark.parametrize("tool", ["in_loop", "in_thread"])
async def test_one_trace_leads_from_the_caller_into_the_handler(
    tool: str, spans: Spans, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    add_handlers(server)
    await soon(server.start())
    client = await make_client("agent-a")
    with tracer.start_as_current_span("outer"):
        thread = await soon(client.call(tool, call_id="call-1"))
    assert thread.startswith("mqtt-agent-tool") == (tool == "in_thread")
    assert_chain(spans.one("outer"), spans.client(tool), spans.server(tool), spans.one("inside"))

    common = {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "messaging.system": "mqtt",
        "messaging.message.conversation_id": "call-1",
        "network.protocol.name": "mqtt",
        "network.protocol.version": "5",
    }
    assert attributes(spans.client(tool)) == {**common, "mqtt_agent.server": server.server_id}
    assert attributes(spans.server(tool)) == {**common, "mqtt_agent.client": "agent-a"}
    assert spans.client(tool).status.status_code is StatusCode.UNSET
    assert spans.server(tool).status.status_code is StatusCode.UNSET


async def test_calls_of_a_sync_client_continue_the_trace_of_their_thread(
    spans: Spans, broker: Broker, namespace: str, make_server: MakeServer
) -> None:
    server = make_server()
    add_handlers(server)
    await soon(server.start())

    def script() -> None:
        with mqtt_agent.sync.ToolClient(broker=broker.url, namespace=namespace) as client:
            with tracer.start_as_current_span("outer"):
                client.call("in_thread")

    await soon(asyncio.to_thread(script))
    assert_chain(spans.one("outer"), spans.client("in_thread"), spans.server("in_thread"), spans.one("inside"))


async def test_each_call_is_in_the_trace_of_its_own_caller(
    spans: Spans, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.tool
    async def trace_id() -> str:
        await asyncio.sleep(0)
        return format_trace_id(trace.get_current_span().get_span_context().trace_id)

    with tracer.start_as_current_span("while starting"):
        await soon(server.start())
        client = await make_client()

    async def call() -> tuple[str, str]:
        with tracer.start_as_current_span("outer") as outer:
            return format_trace_id(outer.get_span_context().trace_id), await client.call("trace_id")

    pairs = await soon(asyncio.gather(*(call() for _ in range(50))))
    assert all(ours == seen for ours, seen in pairs)
    assert len({seen for _, seen in pairs}) == 50

    await soon(client.call("trace_id"))
    [alone] = [span for span in spans.named("tools/call trace_id") if span.parent is None]
    assert alone.kind is SpanKind.CLIENT


@pytest.mark.rule("TRACE-1")
async def test_tracestate_and_baggage_arrive_with_the_call(
    spans: Spans, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.tool
    def see() -> list[Any]:
        return [trace.get_current_span().get_span_context().trace_state.to_header(), baggage.get_baggage("tenant")]

    await soon(server.start())
    client = await make_client()
    remote = propagate.extract({"traceparent": TRACEPARENT, "tracestate": "rojo=00f067aa,congo=t61r"})
    token = context.attach(baggage.set_baggage("tenant", "größe 7", remote))
    try:
        assert await soon(client.call("see")) == ["rojo=00f067aa,congo=t61r", "größe 7"]
    finally:
        context.detach(token)


async def test_failed_calls_are_recorded_as_errors_on_both_sides(
    spans: Spans, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(drain_timeout=0.1)

    @server.tool
    async def fail() -> None:
        raise ToolError("the database is away")

    @server.tool
    def fail_in_thread() -> None:
        raise ValueError("unprintable: \ud800")

    @server.tool
    async def no_json() -> object:
        return object()

    @server.tool
    async def typed(n: int) -> int:
        return n

    async def hang() -> None:
        await asyncio.Event().wait()

    server.add_tool("too_slow", hang, timeout=0.05)
    server.add_tool("hang", hang)
    await soon(server.start())
    client = await make_client()

    for tool, error, kind, message in (
        ("fail", ToolFailed, "tool_error", "the database is away"),
        ("fail_in_thread", ToolFailed, "tool_error", "unprintable: \ufffd"),
        ("no_json", ToolFailed, "tool_error", "JSON"),
        ("typed", InvalidArguments, "invalid_arguments", "n"),
        ("too_slow", CallTimeout, "timeout", "longer than 0.05 s"),
    ):
        with pytest.raises(error):
            await soon(client.call(tool))
        for span in (spans.client(tool), spans.server(tool)):
            assert span.status.status_code is StatusCode.ERROR
            assert attributes(span)["error.type"] == kind
            assert message in (span.status.description or "")
            (span.status.description or "").encode()  # otherwise no exporter could send the span

    [event] = spans.server("fail_in_thread").events
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "ValueError"
    assert "in fail_in_thread" in str(event.attributes["exception.stacktrace"])

    with pytest.raises(ToolUnavailable):
        await soon(client.call("nobody_has_it"))
    assert attributes(spans.client("nobody_has_it"))["error.type"] == "unavailable"
    with pytest.raises(CallTimeout):
        await soon(client.call("hang", timeout=0.05))
    assert attributes(spans.client("hang"))["error.type"] == "timeout"


async def test_a_canceled_call_ends_both_spans(spans: Spans, make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    running = asyncio.Event()
    over = asyncio.Event()

    @server.tool
    async def hang() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    await soon(server.start())
    client = await make_client()
    handle = await soon(client.submit("hang"))
    await soon(running.wait())
    await handle.cancel()
    await soon(over.wait())
    await soon(server.stop())
    for span in (spans.client("hang"), spans.server("hang")):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "canceled"
    with pytest.raises(CallCanceled):
        await handle.result()


async def test_the_span_of_a_submitted_call_ends_when_the_handle_is_over(
    spans: Spans, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    go_on = asyncio.Event()

    @server.tool
    async def wait() -> None:
        await go_on.wait()

    await soon(server.start())
    client = await make_client()
    with tracer.start_as_current_span("outer") as outer:
        handle = await soon(client.submit("wait"))
        assert trace.get_current_span() is outer
        again = await soon(client.submit("wait", call_id=handle.call_id))
    assert again.call_id == handle.call_id
    assert spans.named("tools/call wait") == []
    go_on.set()
    await soon(handle.result())
    await soon(again.result())
    kinds = [span.kind for span in spans.named("tools/call wait")]
    assert sorted(kinds, key=str) == [SpanKind.CLIENT, SpanKind.CLIENT, SpanKind.SERVER]


@pytest.mark.rule("TRACE-2")
async def test_a_call_that_is_sent_again_carries_the_same_trace(
    spans: Spans, connection: Connection, make_client: MakeClient, namespace: str
) -> None:
    topics = Topics(namespace)
    sent: list[InboundMessage] = []

    def card(server: str, status: Any = "online") -> tuple[str, bytes]:
        return topics.server_card(server), encode(ServerCard(server=server, tools=["work"], status=status))

    def on_call(message: InboundMessage) -> None:
        sent.append(message)
        if len(sent) == 1:
            connection.publish_soon(*card("ghost:1", "offline"), retain=True)
            return
        call = decode(Call, message.payload)
        connection.publish_soon(topics.client_responses(call.client), encode(Response(call_id=call.call_id, result=1)))

    tool = ToolCard(tool="work", server="ghost", annotations=ToolAnnotations(idempotentHint=True))
    await soon(connection.subscribe(topics.tool_call("work"), on_call))
    await soon(connection.publish(topics.tool_card("work"), encode(tool), retain=True))
    for server in ("ghost:1", "ghost:2"):
        await soon(connection.publish(*card(server), retain=True))
    client = await make_client()
    assert await soon(client.call("work", timeout=20), 20) == 1
    first, *others = (dict(message.user_properties) for message in sent)
    assert others
    assert all(again == first for again in others)
    span = spans.client("work").context
    assert span is not None
    assert first["traceparent"].startswith(f"00-{format_trace_id(span.trace_id)}-{format_span_id(span.span_id)}-")


HOSTILE: list[list[tuple[str, str]]] = [
    [("traceparent", "")],
    [("traceparent", "no traceparent")],
    [("traceparent", f"00-{'0' * 32}-{'0' * 16}-00")],
    [("traceparent", f"ff-{TRACE_ID}-00f067aa0ba902b7-01")],
    [("traceparent", f"00-{TRACE_ID.upper()}-00f067aa0ba902b7-01")],
    [("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01" + "-more" * 10_000)],
    [("traceparent", "０0-٤bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
    [("traceparent", "\u202e💥")],
    [("Traceparent", TRACEPARENT), ("tracestate", "a=1")],
]
ODD: list[list[tuple[str, str]]] = [
    [("traceparent", TRACEPARENT), ("traceparent", "no traceparent")],
    [("traceparent", TRACEPARENT), ("tracestate", "x" * 60_000)],
    [("traceparent", TRACEPARENT), ("tracestate", "=,=,a=b=c,💥")],
    [("traceparent", TRACEPARENT), *[("tracestate", f"k{n}=v") for n in range(500)]],
    [("traceparent", TRACEPARENT), ("baggage", "%%%,=;=, " * 1000)],
    [("traceparent", TRACEPARENT), ("", ""), ("x", "y")],
]


@pytest.mark.rule("TRACE-3")
@pytest.mark.parametrize("properties", [*HOSTILE, *ODD], ids=lambda p: str(p)[:40].encode("ascii", "replace").decode())
async def test_no_trace_context_of_a_caller_can_fail_its_call(
    properties: list[tuple[str, str]],
    spans: Spans,
    connection: Connection,
    make_server: MakeServer,
    broker: Broker,
    namespace: str,
) -> None:
    if not broker.takes_user_properties(properties):
        inapplicable("this broker ends the connection of such a message")
    server = make_server()
    add_handlers(server)
    await soon(server.start())
    topics = Topics(namespace)
    answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    await soon(
        connection.subscribe(
            topics.client_responses("mallory"), lambda message: answered.set_result(decode(Response, message.payload))
        )
    )
    call = encode(Call(call_id="1", client="mallory"))
    options = PublishProperties(user_properties=tuple(properties))
    await soon(connection.publish(topics.tool_call("in_loop"), call, properties=options))
    response = await soon(answered)
    assert (response.status, response.error) == ("ok", None)
    span = spans.server("in_loop")
    assert_chain(span, spans.one("inside"))
    assert span.context is not None
    assert (format_trace_id(span.context.trace_id) == TRACE_ID) == (properties in ODD)


class Broken(TextMapPropagator):
    """An application's propagator that fails, or that tries to send invalid values."""

    @property
    def fields(self) -> set[str]:
        return set()

    def __init__(self, fails: bool) -> None:
        self._fails = fails

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        raise RuntimeError("on purpose")

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        if self._fails:
            raise RuntimeError("on purpose")
        carrier.update({"a": "\x00", "b": "\ud800", "c": "x" * 100_000, "d": 7, "e": "fine"})


@pytest.fixture(params=[True, False], ids=["fails", "writes nonsense"])
def _broken_propagator(request: pytest.FixtureRequest) -> Iterator[None]:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(Broken(request.param))
    yield
    propagate.set_global_textmap(before)


@pytest.mark.usefixtures("_broken_propagator")
async def test_a_broken_propagator_fails_no_call(
    spans: Spans, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    add_handlers(server)
    await soon(server.start())
    client = await make_client()
    assert "mqtt-agent-tool" in await soon(client.call("in_thread"))
    assert spans.server("in_thread").parent is None


async def test_a_trace_goes_on_in_another_process(
    spans: Spans, broker: Broker, namespace: str, make_client: MakeClient
) -> None:
    command = [sys.executable, str(PROGRAM), broker.url, namespace]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            client = await make_client()
            with tracer.start_as_current_span("outer") as outer:
                seen = await soon(client.call("where_am_i", wait_online=True, timeout=60), 60)
            assert process.stdout is not None
            printed = await soon(asyncio.to_thread(process.stdout.readline))
        finally:
            process.kill()
    span = spans.client("where_am_i").context
    assert span is not None
    assert seen == {"pid": str(process.pid), "parent": format_span_id(span.span_id)}
    assert printed.strip() == format_trace_id(outer.get_span_context().trace_id)


SCRIPT = """
import asyncio, sys

HIDE = {hide}
if HIDE:
    sys.modules["opentelemetry"] = None

from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.tools import measuring, tracing


async def main(url, namespace):
    server = ToolServer("server", broker=url, namespace=namespace)

    @server.tool
    async def double(n: int) -> int:
        return 2 * n

    @server.tool
    def fail() -> None:
        raise ValueError("on purpose")

    async with server, ToolClient(broker=url, namespace=namespace) as client:
        print(tracing.ENABLED, await client.call("double", {{"n": 21}}))
        try:
            await client.call("fail")
        except Exception as error:
            print(error)


asyncio.run(main(*sys.argv[1:3]))
if HIDE:
    del sys.modules["opentelemetry"]
print([name for name in sys.modules if name.split(".")[0] == "opentelemetry" and (HIDE or "sdk" in name)])
"""


@pytest.mark.parametrize("hide", [True, False], ids=["not installed", "no provider set"])
async def test_calls_work_without_opentelemetry_and_without_a_provider(
    hide: bool, broker: Broker, namespace: str
) -> None:
    command = [sys.executable, "-c", SCRIPT.format(hide=hide), broker.url, namespace]
    run = asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    done = await soon(run, 60)
    assert done.stdout.splitlines() == [f"{not hide} 42", "fail: on purpose", "[]"]
    [told] = done.stderr.splitlines()
    assert re.match(r"tool fail failed in call \w+ of [\w-]+: ValueError: on purpose \(at ", told)


async def test_an_unusable_opentelemetry_is_told_and_fails_no_call(broker: Broker, namespace: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(hide=False), broker.url, namespace]
    environment = {"OTEL_PROPAGATORS": "no_such_propagator"}
    run = asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, env=environment)
    done = await soon(run, 60)
    assert done.stdout.splitlines()[:2] == ["False 42", "fail: on purpose"]
    assert "calls are not traced: OpenTelemetry cannot be used" in done.stderr


def test_a_signature_is_no_trace_context_so_a_signed_call_without_one_costs_no_span() -> None:
    ours = (("mqtt-agent-sig", "1;caller;1;0;2.A;A"), ("mqtt-agent-statement", "a.b.c"))
    assert not tracing._may_have_context(ours)
    assert tracing._may_have_context((*ours, ("traceparent", "00-1-1-01")))


class FaultyProcessor(SpanProcessor):
    """A span processor of an application that raises when a span starts, or when it ends."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.moment == "start":
            raise RuntimeError("no start")

    def on_end(self, span: ReadableSpan) -> None:
        if self.moment == "end":
            raise RuntimeError("no end")


@pytest.mark.parametrize("moment", ["start", "end"])
async def test_a_call_has_its_result_and_its_trace_when_the_telemetry_of_the_application_raises(
    moment: str,
    make_server: MakeServer,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def record(self, *_: object) -> None:
            raise RuntimeError("no histogram")

    faulty = TracerProvider(shutdown_on_exit=False)
    faulty.add_span_processor(FaultyProcessor(moment))
    monkeypatch.setattr(tracing, "_tracer", faulty.get_tracer("mqtt_agent"))
    monkeypatch.setattr(metering, "_told", set(), raising=False)
    for measured in (measuring.AT_CALLER, measuring.AT_SERVER):
        monkeypatch.setattr(measured, "_instrument", Broken())
    server = make_server("replica-a")

    @server.tool
    def trace_id(fails: bool) -> str:
        if fails:
            raise ToolError("on purpose")
        return format_trace_id(trace.get_current_span().get_span_context().trace_id)

    await soon(server.start())
    client = await make_client("agent-a")
    with tracer.start_as_current_span("agent") as agent:
        result = await soon(client.call("trace_id", {"fails": False}))
        with pytest.raises(ToolFailed, match="on purpose"):
            await soon(client.call("trace_id", {"fails": True}))
    assert result == format_trace_id(agent.get_span_context().trace_id)
    warnings = [each for each in caplog.records if each.levelname == "WARNING"]
    assert sum(f"no {moment}" in each.getMessage() for each in warnings) == 1  # later ones are for debugging
    assert sum("no histogram" in each.getMessage() for each in warnings) == 1
    assert "Traceback" not in caplog.text
