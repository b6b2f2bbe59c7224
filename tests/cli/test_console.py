"""The console in a real browser: what a person sees is checked by what is on the page."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from brokers import Embedded
from mqtt_agent.sync import ToolServer

from .terminal import Terminal, address

HOSTILE = """
from mqtt_agent import ToolServer

server = ToolServer("hostile", namespace=__import__("os").environ["MQTT_AGENT_NAMESPACE"])
ATTACK = "<script>document.title=1</script><img src=x onerror=document.title=1>"

def harmless(text: str) -> str:
    return text + ATTACK

server.add_tool("<script>alert(1)<", harmless, description=ATTACK, input_schema={
    "type": "object", "properties": {"text": {"type": "string", "description": ATTACK}}})
"""

POOL = """
import asyncio
from mqtt_agent.transport import Connection
from mqtt_agent.wire import AgentCard, Topics, encode

async def main():
    topics, connection = Topics(__import__("os").environ["MQTT_AGENT_NAMESPACE"]), Connection()
    await connection.start()
    card = AgentCard(name="crowd", description="many hands", pool=True)
    await connection.publish(topics.agent_card(card.name), encode(card), retain=True)
    print("published", flush=True)

asyncio.run(main())
"""


def ask(url: str, path: str, headers: dict[str, str], body: str | None = None) -> tuple[int, str, dict[str, str]]:
    """One request, with exactly these headers."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    said = answer.status, answer.read(5000).decode(), dict(answer.getheaders())
    connection.close()
    return said


def bearer(url: str) -> dict[str, str]:
    """The header with the token of the console's address."""
    return {"Authorization": "Bearer " + urlsplit(url).fragment.removeprefix("token=")}


def test_servers_tools_calls_and_tasks_are_followed_live(terminal: Terminal, page: Any) -> None:
    serving = terminal.start("serve", "weather")
    serving.says("serves")
    page.goto(address(terminal.start("console")))
    page.locator("#tools").get_by_text("Weather forecast for a city.").wait_for()
    assert "token" not in page.url
    assert terminal.environment["MQTT_AGENT_NAMESPACE"] in page.locator("#place").inner_text()
    terminal.inside("call", "forecast", "city=Oslo", "--as", "caller")
    page.locator("#calls tr", has_text="forecast").get_by_text("completed").wait_for()
    assert "caller" in page.locator("#calls tr", has_text="forecast").inner_text()
    assert "Oslo" not in page.content()  # nothing that may be secret without --payloads
    page.locator("#calls a", has_text="forecast").first.hover()
    page.mouse.down()
    terminal.inside("call", "broken", code=1)
    page.wait_for_timeout(500)  # the news of the call arrive, and do not take away what is being clicked
    page.mouse.up()
    page.locator("#detail h2", has_text="forecast").wait_for()
    page.get_by_text("back").click()
    page.locator("#lines .fault").first.wait_for()
    terminal.start("serve", "writer").says("takes tasks")
    page.locator("#agents tr", has_text="writer").get_by_text("online").wait_for()
    terminal.write("pool.py", POOL)
    terminal.program("pool.py").says("published")
    page.locator("#agents tr", has_text="crowd").get_by_text("pool", exact=True).wait_for()
    assert "pool" not in page.locator("#agents tr", has_text="writer").inner_text()
    assert page.locator("#pools-section").is_hidden()
    page.locator("#agents a", has_text="crowd").click()
    page.locator("#detail").get_by_text("start the console with --store").wait_for()
    page.get_by_text("back").click()
    terminal.inside("delegate", "writer", "rain", "--as", "planner")
    page.locator("#tasks tr", has_text="writer").get_by_text("completed").wait_for()
    assert "rain" not in page.content()
    whole = page.locator("#tasks a").first.get_attribute("title")  # ids of the same minute differ at their end
    assert page.locator("#tasks a").first.inner_text() == "…" + whole[-8:]
    lanes = page.locator("#sequence .lane title").all_text_contents()
    assert {"caller", "weather", "writer"} <= set(lanes)
    assert page.locator("#sequence .arrow.fault").count() > 0
    page.locator("#tasks a").first.click()
    page.locator("#detail").get_by_text("result: completed").first.wait_for()
    page.get_by_text("back").click()
    serving.kill()
    page.locator("#servers tr", has_text="offline, connection lost").wait_for()
    page.locator("#faults .fault", has_text="was lost").wait_for()
    page.locator("#servers .group", has_text="0 of 1 online").wait_for()


NESTED = {
    "type": "object",
    "$defs": {
        "Unit": {"enum": ["celsius", "kelvin"]},
        "Place": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
        },
    },
    "properties": {
        "place": {"$ref": "#/$defs/Place"},
        "unit": {"$ref": "#/$defs/Unit", "default": "celsius"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "days": {"type": ["integer", "null"]},
        "again": {"$ref": "#/properties/again"},
    },
    "required": ["place"],
}


def test_a_form_understands_nested_schemas_and_says_when_the_broker_is_lost(terminal: Terminal, page: Any) -> None:
    with Embedded() as broker:
        terminal.environment["MQTT_AGENT_BROKER"] = broker.url
        server = ToolServer("weather", broker=broker.url, namespace=terminal.environment["MQTT_AGENT_NAMESPACE"])
        server.add_tool("nested", lambda **given: given, input_schema=NESTED)
        server.add_tool("x" * 200, lambda: 1)
        with server:
            page.goto(address(terminal.start("console", "--allow-writes")))
            page.locator("#tools a", has_text="x" * 59 + "…").wait_for()
            page.locator("#tools").get_by_text("nested", exact=True).click()
            place = page.get_by_label("place (required)")
            assert place.get_attribute("placeholder") == 'JSON, such as {"city":"","tags":[""]}'
            place.fill('{"city": "Oslo"}')
            assert page.get_by_label("unit").locator("option").all_inner_texts() == [
                *("default: celsius", "celsius", "kelvin"),
            ]
            page.get_by_label("note").fill("a text without quotation marks")
            page.get_by_label("days").fill("2")
            page.get_by_role("button", name="Call").click()
            page.locator("#result", has_text="Oslo").wait_for()
            result = json.loads(page.locator("#result").inner_text())
            assert result == {"place": {"city": "Oslo"}, "note": "a text without quotation marks", "days": 2}
    page.locator("#link", has_text="lost the broker").wait_for()


def test_a_tool_is_called_through_a_form_made_from_its_schema(terminal: Terminal, page: Any) -> None:
    terminal.start("serve", "weather").says("serves")
    page.goto(address(terminal.start("console", "--allow-writes", "--payloads")))
    page.locator("#tools").get_by_text("forecast", exact=True).click()
    page.get_by_label("city (required)").fill("Bergen")
    page.get_by_label("days").fill("2")
    page.get_by_role("button", name="Call").click()
    page.locator("#result", has_text="Bergen").wait_for()
    assert json.loads(page.locator("#result").inner_text()) == {"city": "Bergen", "days": 2, "tags": []}


def test_a_task_is_given_answered_and_canceled_on_the_page(terminal: Terminal, page: Any) -> None:
    terminal.start("serve", "writer").says("takes tasks")
    url = address(terminal.start("console", "--allow-writes"))
    page.goto(url)
    page.locator("#agents a", has_text="writer").click()
    page.get_by_label("prompt").fill("ask")
    page.get_by_role("button", name="Give the task").click()
    page.locator("#detail .question", has_text="Which colour?").wait_for()
    page.get_by_label("answer").fill("<b>blue</b>")
    page.get_by_role("button", name="Answer").click()
    page.locator("#detail pre", has_text="you said <b>blue</b>").wait_for()
    life = page.locator("#detail ol").inner_text()
    for what in ("task", "working", "1/2 thinking", "input-required", "answer", "result: completed"):
        assert what in life
    assert page.get_by_role("button", name="Cancel the task").count() == 0

    link = page.url
    page.goto("about:blank")
    page.goto(link)  # a browser that has opened the address with the token once may be sent the link
    page.locator("#detail pre", has_text="you said").wait_for()

    page.goto(url.partition("#")[0] + "#agent/writer")
    page.get_by_label("prompt").fill("ask")
    page.get_by_role("button", name="Give the task").click()
    page.locator("#detail .question", has_text="Which colour?").wait_for()
    page.get_by_role("button", name="Cancel the task").click()
    page.locator("#detail .state", has_text="canceled").wait_for()

    terminal.inside("delegate", "writer", "ask", "--as", "planner", "--task-id", "t-1", code=1)
    page.goto(url.partition("#")[0] + "#task/t-1")
    page.get_by_text("Only planner can answer or cancel it").wait_for()
    assert "Which colour?" not in page.content()  # a text of somebody else, without --payloads
    assert page.get_by_role("button", name="Cancel the task").count() == 0


@pytest.mark.long
def test_a_console_that_starts_again_shows_the_open_questions_of_its_tasks(terminal: Terminal, page: Any) -> None:
    terminal.start("serve", "writer").says("takes tasks")
    console = terminal.start("console", "--allow-writes")
    page.goto(address(console))
    page.goto(page.url.partition("#")[0] + "#agent/writer")
    page.get_by_label("prompt").fill("ask")
    page.get_by_role("button", name="Give the task").click()
    page.locator("#detail .question", has_text="Which colour?").wait_for()
    assert console.interrupt() == 130
    page.goto(address(terminal.start("console", "--allow-writes")))
    page.locator("#tasks a", has_text="asks a question").click()
    page.get_by_label("answer").fill("green")
    page.get_by_role("button", name="Answer").click()
    page.locator("#detail pre", has_text="you said green").wait_for()


def test_without_allow_writes_nothing_can_be_changed(terminal: Terminal, page: Any) -> None:
    terminal.start("serve", "weather").says("serves")
    terminal.start("serve", "writer").says("takes tasks")
    url = address(terminal.start("console", "--payloads"))
    page.goto(url)
    page.locator("#tools").get_by_text("forecast", exact=True).click()
    assert page.get_by_role("button", name="Read-only").is_disabled()
    terminal.inside("delegate", "writer", "ask", "--task-id", "t-1", "--as", "planner", code=1)
    page.evaluate("location.hash = 'task/t-1'")
    page.locator("#detail .question", has_text="Which colour?").wait_for()
    assert page.locator("#detail form, #detail button:has-text('Cancel')").count() == 0
    headers = {**bearer(url), "Origin": f"http://{urlsplit(url).netloc}", "Content-Type": "application/json"}
    for path, body in (
        ("/call", '{"tool": "forecast", "arguments": {"city": "Oslo"}}'),
        ("/delegate", '{"agent": "writer", "prompt": "x"}'),
        ("/answer", '{"task_id": "t-1", "input_id": "1", "value": "x"}'),
        ("/cancel", '{"task_id": "t-1"}'),
    ):
        status, said, _ = ask(url, path, headers, body)
        assert (status, "only reads" in said) == (403, True)


def test_what_a_peer_sends_never_becomes_a_part_of_the_page(terminal: Terminal, page: Any) -> None:
    terminal.write("hostile.py", HOSTILE)
    terminal.start("serve", "hostile").says("serves")
    page.goto(address(terminal.start("console", "--allow-writes", "--payloads")))
    page.locator("#tools").get_by_text("<script>alert(1)<", exact=True).click()
    page.get_by_label("text").fill("<b>bold</b>")
    page.get_by_role("button", name="Call").click()
    page.locator("#result", has_text="<script>document.title").wait_for()
    page.get_by_text("back").click()
    page.locator("#calls tr", has_text="<script>alert(1)<").wait_for()
    page.locator("#sequence text", has_text="<script>").first.wait_for()
    page.locator("#calls a").first.click()
    page.locator("#detail pre", has_text="<img src=x").first.wait_for()
    assert page.title() == "MQTT.Agent console"
    assert page.locator("main script, main img, main b").count() == 0


NONSENSE = """
import asyncio
import json
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Topics

async def main():
    topics, connection = Topics(__import__("os").environ["MQTT_AGENT_NAMESPACE"]), Connection()
    await connection.start()
    for payload in (
        b"[" * 100_000,
        b'{"task_id": "t", "result": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"task_id": "t", "progress": 1' + b"0" * 400 + b"}",
        b'{"task_id": "t", "progress": NaN, "content": "\\ud800"}',
        b'{"task_id": {}, "status": []}',
        b"\\xff",
    ):
        for topic in (topics.task_events("t"), topics.task_result("t"), topics.tool_call("t"), topics.tool_card("t")):
            await connection.publish(topic, payload)
    card = {"tool": "odd", "server": "odd", "description": "x", "input_schema": {
        "required": 5, "properties": {"a": 1, "b": {"default": [], "enum": 3}}}}
    await connection.publish(topics.tool_card("odd"), json.dumps(card).encode(), retain=True)
    print("published", flush=True)

asyncio.run(main())
"""


@pytest.mark.long
def test_messages_of_nonsense_do_not_stop_the_page(terminal: Terminal, page: Any) -> None:
    terminal.write("nonsense.py", NONSENSE)
    page.goto(address(terminal.start("console", "--payloads")))
    page.locator("#link", has_text="live").wait_for()
    terminal.program("nonsense.py").says("published")
    terminal.start("serve", "weather").says("serves")
    page.locator("#tools").get_by_text("forecast", exact=True).wait_for()
    page.locator("#tools").get_by_text("odd", exact=True).click()
    page.get_by_label("b").wait_for()


def test_only_who_has_the_token_and_names_this_server_gets_in(terminal: Terminal) -> None:
    url = address(terminal.start("console", "--allow-writes"))
    where, token = urlsplit(url), bearer(url)
    own = {**token, "Origin": f"http://{where.netloc}", "Content-Type": "application/json"}
    text = where.fragment.removeprefix("token=")
    for path in ("/events", "/tool?name=x", "/task?name=x", f"/events?token={text}", "/nothing"):
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer wrong"},
            {"Cookie": f"token={text}"},
        ):
            assert ask(url, path, headers)[0] == 403
    for path in ("/", "/events"):
        assert ask(url, path, {**token, "Host": f"attacker.example:{where.port}"})[0] == 403  # DNS rebinding
        assert ask(url, path, {**token, "Origin": "http://attacker.example"})[0] == 403
    for headers in (
        {**own, "Origin": "null"},
        {**own, "Origin": "http://attacker.example"},
        token,
        {**own, "Authorization": ""},
    ):
        for path in ("/call", "/delegate", "/answer", "/cancel"):
            assert ask(url, path, headers, "{}")[0] == 403
    for path in ("/call", "/delegate", "/answer", "/cancel", "/nothing"):
        assert ask(url, path, own, "{}")[0] == 400
    assert ask(url, "/call", {**own, "Content-Type": "text/plain"}, "{}")[0] == 400
    assert ask(url, "/call", own, "[" * 100_000)[0] == 400
    status, page, headers = ask(url, "/", {})  # the page itself is the same for everybody
    assert status == 200
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Set-Cookie" not in headers
    assert text not in page


class Neighbour(http.server.BaseHTTPRequestHandler):
    """A web server of somebody else at another port of this computer; ``seen`` has what the browser sends to it."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(f"{self.path} {self.headers}")
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_another_port_of_this_computer_never_gets_the_token(terminal: Terminal, page: Any) -> None:
    url = address(terminal.start("console"))
    page.goto(url)
    page.locator("#link", has_text="live").wait_for()
    assert "token" not in page.url
    with http.server.HTTPServer(("127.0.0.1", 0), Neighbour) as neighbour:
        threading.Thread(target=neighbour.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{neighbour.server_address[1]}/")
        stored = page.evaluate("document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
        neighbour.shutdown()
    assert Neighbour.seen
    token = urlsplit(url).fragment.removeprefix("token=")
    assert [each for each in (*Neighbour.seen, stored) if token in each] == []
    assert page.context.cookies() == []


@pytest.mark.long
def test_the_address_of_a_new_console_at_the_same_port_is_pasted_into_the_open_page(
    terminal: Terminal, page: Any
) -> None:
    from brokers import free_port

    port = str(free_port())
    console = terminal.start("console", "--port", port)
    page.goto(address(console))
    page.locator("#link", has_text="live").wait_for()
    assert console.interrupt() == 130
    page.locator("#link", has_text="not connected").wait_for()
    url = address(terminal.start("console", "--port", port))
    page.locator("#link", has_text="open the address that mqtt-agent console has printed").wait_for()
    page.goto(url)  # only the fragment differs, so the browser does not load the page again
    page.locator("#link", has_text="live").wait_for()
    another = page.context.new_page()
    another.goto(url.partition("#")[0] + "#tool/forecast")
    another.locator("#link", has_text="live").wait_for()


def test_an_address_for_every_network_is_refused(terminal: Terminal) -> None:
    assert "name one address" in terminal.inside("console", "--listen", "0.0.0.0", code=2).err


def test_the_broker_opens_the_console_with_ui(terminal: Terminal) -> None:
    from brokers import free_port

    running = terminal.start("broker", "--ui", "--port", str(free_port()))
    url = address(running)
    assert ask(url, "/tool?name=x", bearer(url))[0] == 404
    assert running.interrupt() == 130


@pytest.mark.long
def test_a_thousand_agents_fit_on_a_telephone(terminal: Terminal, browser: Any) -> None:
    terminal.write(
        "many.py",
        """
import asyncio
from mqtt_agent.transport import Connection
from mqtt_agent.wire import AgentCard, Topics, encode

async def main():
    topics, connection = Topics(__import__("os").environ["MQTT_AGENT_NAMESPACE"]), Connection()
    await connection.start()
    for number in range(1000):
        card = AgentCard(name=f"agent-{number}", description="a long description " * 5)
        await connection.publish(topics.agent_card(card.name), encode(card), retain=True)
    print("published", flush=True)

asyncio.run(main())
""",
    )
    terminal.program("many.py").says("published")
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(address(terminal.start("console")), timeout=60_000)
    page.get_by_text("1000 of 1000 online").wait_for(timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
