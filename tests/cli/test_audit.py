"""The verb ``audit``, as an operator types it."""

from __future__ import annotations

import gzip
import json
import time

from mqtt_agent.identity import Identity, PrivateKey, TrustedKeys
from mqtt_agent.sync import ToolClient
from mqtt_agent.sync import ToolServer as SyncToolServer

from .terminal import Terminal


def test_an_audit_keeps_the_messages_of_a_namespace_and_says_who_called_what(terminal: Terminal) -> None:
    keys = {name: PrivateKey.new(name) for name in ("agent-a", "weather", "evil")}
    trusted = TrustedKeys(key.public for key in keys.values())
    trusted.save(terminal.home / "trusted.jwks")
    broker, namespace = terminal.environment["MQTT_AGENT_BROKER"], terminal.environment["MQTT_AGENT_NAMESPACE"]
    auditing = terminal.start("audit", "--trusted", "trusted.jwks", "--as", f"audit-{namespace[-6:]}")
    auditing.says("keeping")
    server = SyncToolServer("weather", broker=broker, namespace=namespace, identity=Identity(keys["weather"], trusted))
    server.add_tool("forecast", lambda: "sun")
    with server:
        for key in ("agent-a", "evil"):
            identity = Identity(keys[key], trusted)
            with ToolClient("agent-a", broker=broker, namespace=namespace, identity=identity) as client:
                assert client.call("forecast") == "sun"
    deadline = time.monotonic() + 30
    while (terminal.home / "audit.jsonl").read_text().count('"kind": "responses"') < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert auditing.interrupt() == 130

    found = terminal.inside("audit", "query", "--who", "agent-a", "--since", "1h", "--only", "call", "--json").lines
    assert [(line["proven"], line["of"], line["outcome"]) for line in found] == [
        ("agent-a", "forecast", "seen"),
        ("evil", "forecast", "refused"),
    ]
    assert {line["direction"] for line in found} == {"seen"}
    forged = terminal.inside("audit", "query", "--who", "evil", "--json").lines
    assert {line["outcome"] for line in forged} == {"refused"}


def test_a_query_reads_rotated_files_and_says_what_it_cannot_read(terminal: Terminal) -> None:
    def line(time: str, who: str) -> str:
        return json.dumps({"time": time, "claimed": who, "kind": "call", "outcome": "accepted"}) + "\n"

    with gzip.open(terminal.home / "audit.jsonl.2.gz", "wt") as file:
        file.write(line("2026-01-01T00:00:00.000Z", "agent-a"))
    terminal.write("audit.jsonl.1", line("2026-01-02T00:00:00.000Z", "weather:1") + '{"half a li\n')
    terminal.write("audit.jsonl", line("2026-01-03T00:00:00.000Z", "agent-a"))
    shown = terminal.inside("audit", "query", "--who", "weather")
    assert "2026-01-02" in shown.out
    assert "2026-01-01" not in shown.out
    assert "could not be read: 1 line" in shown.err
    later = terminal.inside("audit", "query", "audit.jsonl", "--since", "2026-01-02T12:00:00Z", "--json").lines
    assert [each["time"] for each in later] == ["2026-01-03T00:00:00.000Z"]
    assert "there is no audit other" in terminal.inside("audit", "query", "other", code=2).err


def test_a_message_that_was_refused_after_its_line_was_written_is_found_only_as_refused(terminal: Terminal) -> None:
    about = {"endpoint": "agent-b", "topic": "t", "id": "t-1", "claimed": "agent-a", "kind": "inbox"}
    first = {**about, "time": "2026-01-01T00:00:00.000Z", "outcome": "accepted", "reason": None}
    other = {**first, "id": "t-2"}
    second = {**about, "time": "2026-01-01T00:00:01.000Z", "outcome": "refused", "revises": first["time"]}
    terminal.write("audit.jsonl", "".join(json.dumps(each) + "\n" for each in (first, other, second)))
    found = terminal.inside("audit", "query", "--json").lines
    assert [(each["id"], each["outcome"]) for each in found] == [("t-2", "accepted"), ("t-1", "refused")]
    accepted = terminal.inside("audit", "query", "--only", "accepted", "--json").lines
    assert [each["id"] for each in accepted] == ["t-2"]


def test_the_refusal_of_one_message_never_hides_the_message_of_another_sender(terminal: Terminal) -> None:
    about = {"endpoint": "agent-b", "topic": "t", "id": "t-1", "kind": "inbox", "time": "2026-01-01T00:00:00.000Z"}
    forged = {**about, "claimed": "evil", "outcome": "accepted"}  # with the id of another message, in its millisecond
    real = {**about, "claimed": "agent-a", "outcome": "accepted"}
    refused = {**forged, "time": "2026-01-01T00:00:01.000Z", "outcome": "refused", "revises": about["time"]}
    terminal.write("audit.jsonl", "".join(json.dumps(each) + "\n" for each in (forged, real, refused)))
    found = terminal.inside("audit", "query", "--json").lines
    assert [(each["claimed"], each["outcome"]) for each in found] == [("agent-a", "accepted"), ("evil", "refused")]


def test_very_many_refusals_of_a_stranger_do_not_stop_a_query(terminal: Terminal) -> None:
    about = {"endpoint": "agent-b", "topic": "t", "time": "2026-01-01T00:00:00.000Z"}
    ours = [{**about, "id": f"{n}", "claimed": "agent-a", "outcome": "accepted"} for n in range(20_000)]
    evil = [{**about, "id": f"e{n}", "claimed": "evil", "outcome": "refused", "revises": "x"} for n in range(20_000)]
    terminal.write("audit.jsonl", "".join(json.dumps(each) + "\n" for each in (*ours, *evil)))
    begun = time.monotonic()
    found = terminal.inside("audit", "query", "--who", "agent-a", "--json").lines
    assert len(found) == 20_000
    assert time.monotonic() - begun < 60  # it was 13 minutes
