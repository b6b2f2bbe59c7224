"""Bad input: each verb says in one message what is wrong and what to do, and ends with the exit code of docs/cli.md.

The verbs, their options and their files come from the parser itself. So a new verb, or a new option with a file, fails
here until the tables below say what it does with bad input.
"""

from __future__ import annotations

import http.server
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from brokers import Embedded, Mosquitto, password_line
from mqtt_agent.cli.verbs import SHARED
from mqtt_agent.identity import PrivateKey
from mqtt_agent.sync import Agent, ToolServer
from support import require

from tests.certificates import Authority

from .terminal import Said, Terminal
from .verbs import VERBS

pytest.importorskip("a2a_mqtt_agent")
pytest.importorskip("mcp_mqtt_agent")

WORDS: dict[str, tuple[str, ...]] = {
    "a2a join": ("CARD", "--agent-id", "a"),
    "a2a serve": ("--port", "0"),
    "acl check": ("roster.toml",),
    "acl explain": ("roster.toml", "agent-a", "publish", "a2a/v1/agents/agent-a/card"),
    "acl write": ("roster.toml", "--for", "emqx"),
    "agents": (),
    "answer": ("t-9", "blue", "--as", "me"),
    "audit listen": (),
    "audit query": (),
    "bench": ("--calls", "1"),
    "bridge": ("--name", "clock", "--", sys.executable, "mcp_server.py"),
    "broker": (),
    "call": ("forecast",),
    "cancel": ("t-9", "--as", "me"),
    "console": (),
    "context add": ("lab",),
    "context list": (),
    "context remove": ("lab",),
    "context use": ("lab",),
    "delegate": ("writer", "cats", "--as", "me"),
    "doctor": ("--seconds", "0"),
    "forget": ("--yes",),
    "keys new": ("agent-c",),
    "keys show": ("agent-a.jwk",),
    "keys state": ("agent-a.jwk", "--issuer", "agent-a.jwk", "--roster", "roster.toml", "--file", "agent-a.jwt"),
    "keys trust": ("trusted.jwks", "agent-a.jwk"),
    "mcp": (),
    "metrics": ("--port", "0"),
    "resume": ("t-9", "--as", "me"),
    "serve": ("weather",),
    "servers": (),
    "show": ("t-9", "--as", "me"),
    "tasks": ("--as", "me"),
    "token issue": ("roster.toml", "agent-a", "--key-file", "secret"),
    "tools": (),
    "watch": (),
}
"""The words that complete each verb."""


READS_ONLY_A_STORE = {"tasks"}
CONNECTING = [name for name, command in VERBS.items() if "context" in {each.name for each in command.params}]
CONNECTING = [name for name in CONNECTING if name not in READS_ONLY_A_STORE]

ROSTER = '[programs.agent-a]\nkind = "agent"\n'
MCP_SERVER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        version = asked.get("params", {}).get("protocolVersion")
        about = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
        result = {"initialize": about, "tools/list": {"tools": []}}.get(asked["method"], {})
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""
REMOTE_CARD = {
    "name": "remote",
    "description": "x",
    "version": "1",
    "supportedInterfaces": [{"url": "http://127.0.0.1:1/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
    "capabilities": {},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [],
}


NAMELESS = {"a2a serve", "audit listen", "bench", "broker", "console", "context add", "context list", "keys new", "mcp"}
NAMELESS |= {"metrics", "servers", "watch"}
"""The verbs that take no name of something that must be there."""
UNKNOWN: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a2a join": (("NOBODY", "--agent-id", "a"), 2, "has no readable A2A card"),
    "acl check": (("roster.toml", "--for", "mosquito"), 2, "did you mean 'mosquitto'?"),
    "acl explain": (("roster.toml", "agent-x", "publish", "x"), 2, "or name one of agent-a"),
    "acl write": (("roster.toml", "--for", "mosquito"), 2, "did you mean 'mosquitto'?"),
    "agents": (("writr",), 3, "did you mean 'writer'?"),
    "answer": (("t-8", "blue", "--as", "me"), 1, "Next: list the tasks"),
    "audit query": (("--who", "nobody"), 0, "no line of the audit fits"),
    "bridge": (("--name", "x", "--", "no-such-command"), 2, "no-such-command does not answer"),
    "call": (("forcast",), 3, "did you mean 'forecast'?"),
    "cancel": (("t-8", "--as", "me"), 1, "Next: list the tasks"),
    "context remove": (("labb",), 2, "did you mean 'lab'?"),
    "context use": (("labb",), 2, "did you mean 'lab'?"),
    "delegate": (("writr", "cats", "--as", "me"), 3, "did you mean 'writer'?"),
    "doctor": (("--role", "agnt"), 2, "did you mean 'agent'?"),
    "forget": (("forcast", "--yes"), 2, "did you mean 'forecast'?"),
    "keys show": (("agent-x.jwk",), 2, "agent-x.jwk cannot be"),
    "keys state": (("agent-x.jwk", "--issuer", "agent-a.jwk", "--roster", "roster.toml"), 2, "agent-x.jwk cannot be"),
    "keys trust": (("trusted.jwks", "agent-b.jwk", "--roster", "roster.toml"), 2, "has no program 'agent-b'"),
    "resume": (("t-8", "--as", "me"), 1, "Next: list the tasks"),
    "serve": (("weathr",), 2, "there is no module 'weathr'"),
    "show": (("t-8", "--as", "me"), 1, "Next: list the tasks"),
    "tasks": (("--state", "wrking"), 2, "the states are submitted, working"),
    "token issue": (("roster.toml", "agent-x", "--key-file", "secret"), 2, "or name one of agent-a"),
    "tools": (("forcast",), 3, "did you mean 'forecast'?"),
}

ABOUT_FILES = re.compile(r"\b(FILE|FOLDER|ROSTER|JWKS|TRUSTED|KEY|JSON|file|folder)\b")
NOT_READ = {
    ("a2a join", "store"), ("a2a serve", "store"), ("acl write", "output"), ("audit listen", "file"),
    ("broker", "folder"), ("serve", "store"), ("keys new", "file"), ("keys state", "file"), ("keys trust", "trusted"),
    *(("context add", each) for each in ("password_file", "token_file", "ca", "certificate", "key")),
}  # fmt: skip
"""Files and folders that a verb makes, or whose names it only saves."""
TAKES_ANY_TEXT = {("a2a join", "bearer_file"), ("a2a serve", "bearer_file"), ("mcp", "bearer_file")}
TAKES_ANY_TEXT |= {("token issue", "key_file"), ("call", "words")}
"""Files of which every text is good."""
FILES: dict[tuple[str, str], tuple[str, ...]] = {
    ("a2a join", "bearer_file"): ("--bearer-file", "{}", "CARD", "--agent-id", "a"),
    ("a2a join", "card_trust"): ("--card-trust", "{}", "CARD", "--agent-id", "a"),
    ("a2a join", "login"): ("--login", "{}", "CARD", "--agent-id", "a"),
    ("a2a serve", "bearer_file"): ("--bearer-file", "{}"),
    ("a2a serve", "callers"): ("--callers", "{}"),
    ("a2a serve", "card_key"): ("--card-key", "{}"),
    ("a2a serve", "client_ca"): ("--client-ca", "{}", "--tls-cert", "good.pem", "--tls-key", "good.key"),
    ("a2a serve", "tls_cert"): ("--tls-cert", "{}", "--tls-key", "good.key"),
    ("a2a serve", "tls_key"): ("--tls-cert", "good.pem", "--tls-key", "{}"),
    ("a2a serve", "tokens"): ("--tokens", "{}"),
    ("acl check", "against"): ("roster.toml", "--for", "emqx", "--against", "{}"),
    ("acl check", "roster"): ("{}",),
    ("acl explain", "roster"): ("{}", "agent-a", "publish", "x"),
    ("acl write", "passwords"): ("roster.toml", "--for", "mosquitto", "--passwords", "{}"),
    ("acl write", "roster"): ("{}", "--for", "emqx"),
    ("answer", "value"): ("t-9", "--value", "@{}"),
    ("audit listen", "trusted"): ("--trusted", "{}"),
    ("audit query", "files"): ("{}",),
    ("call", "arguments"): ("forecast", "-a", "@{}"),
    ("call", "words"): ("forecast", "city=@{}"),
    ("delegate", "data"): ("writer", "--data", "@{}"),
    ("keys show", "file"): ("{}",),
    ("keys state", "issuer"): ("agent-a.jwk", "--issuer", "{}", "--roster", "roster.toml"),
    ("keys state", "roster"): ("agent-a.jwk", "--issuer", "agent-a.jwk", "--roster", "{}"),
    ("keys trust", "keys"): ("trusted.jwks", "{}"),
    ("keys trust", "roster"): ("trusted.jwks", "agent-a.jwk", "--roster", "{}"),
    ("mcp", "bearer_file"): ("--http", "0", "--bearer-file", "{}"),
    ("mcp", "callers"): ("--http", "0", "--callers", "{}"),
    ("serve", "target"): ("{}_module.py",),
    ("tasks", "store"): ("--store", "{}", "--as", "me"),
    ("token issue", "key_file"): ("roster.toml", "agent-a", "--key-file", "{}"),
    ("token issue", "roster"): ("{}", "agent-a", "--key-file", "secret"),
}
"""How each verb is told to read a file; ``{}`` stands for its name."""


def files_of_the_parser() -> set[tuple[str, str]]:
    """Each verb with the names of its own options and arguments that are about files or JSON."""
    return {
        (verb, each.name)
        for verb, command in VERBS.items()
        for each in command.params
        if each.name not in SHARED or verb == "context add"
        if ABOUT_FILES.search(f"{each.metavar} {each.help}") and not getattr(each, "is_flag", False)
    }


def test_the_tables_have_each_verb_and_each_file_of_the_parser() -> None:
    assert set(VERBS) == set(WORDS) == UNKNOWN.keys() | NAMELESS
    assert files_of_the_parser() == FILES.keys() | NOT_READ


class Remote(http.server.BaseHTTPRequestHandler):
    """A remote A2A agent: only its card. Below ``/nonsense``, the card is no JSON."""

    def do_GET(self) -> None:
        card = b"{" if self.path.startswith("/nonsense") else json.dumps(REMOTE_CARD).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(card)))
        self.end_headers()
        self.wfile.write(card)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def remote() -> Iterator[str]:
    """The URL of the remote agent."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Remote) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, remote: str) -> Iterator[Terminal]:
    """A terminal in a folder with everything that the verbs need, at a broker with one tool, one agent and one task."""
    home = tmp_path_factory.mktemp("place")
    authority = Authority(home / "certificates", "test")
    leaf = authority.issue("localhost")
    leaf.certificate.rename(home / "good.pem")
    leaf.key.rename(home / "good.key")
    for name in ("agent-a", "agent-b"):
        PrivateKey.new(name).save(home / f"{name}.jwk")
    with Embedded() as broker:
        terminal = Terminal(home, broker.url, "bad/v1")
        for name, text in {
            "roster.toml": ROSTER,
            "secret": "0123456789abcdef" * 2,
            "weather.py": "def forecast(city: str) -> str:\n    return city",
            "mcp_server.py": MCP_SERVER,
            "audit.jsonl": "",
        }.items():
            terminal.write(name, text)
        at: dict[str, Any] = {"broker": broker.url, "namespace": "bad/v1"}
        server = ToolServer("weather", **at)
        server.add_tool("forecast", lambda city: city)
        writer = Agent("writer", store=None, **at)
        writer.on_task(lambda task: "done")
        with server, writer:
            yield terminal


@pytest.fixture
def run(place: Terminal, remote: str) -> Callable[..., Said]:
    """Runs a verb: ``run("keys show", ("x.jwk",), 2)``. What it says must be one message."""

    def run(verb: str, words: tuple[str, ...], code: int, **environment: str) -> Said:
        if verb.startswith("context "):
            place.inside("context", "add", "lab", "--broker", "mqtt://localhost")
        urls = {"CARD": remote, "NOBODY": "http://127.0.0.1:1"}
        said = place.inside(*verb.split(), *(urls.get(word, word) for word in words), code=code, **environment)
        assert "Traceback" not in said.err
        assert said.err.count("mqtt-agent: ") + said.err.count("Next: ") <= 2, said.err
        assert len(said.err.splitlines()) <= 8, said.err
        return said

    return run


Run = Callable[..., Said]


@pytest.mark.parametrize("verb", CONNECTING)
def test_a_broker_that_is_away(run: Run, verb: str, url_of_nobody: str) -> None:
    said = run(verb, WORDS[verb], 3, MQTT_AGENT_BROKER=url_of_nobody)
    assert "Next: start " in said.out + said.err
    told = json.loads(run(verb, with_options(verb, "--json"), 3, MQTT_AGENT_BROKER=url_of_nobody).out.splitlines()[-1])
    assert (told if verb == "doctor" else told["error"])["next"].startswith("start ")


def with_options(verb: str, *options: str) -> tuple[str, ...]:
    """The words of a verb, with options before them: behind ``--``, they would be words of another command."""
    return (*options, *WORDS[verb])


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - set(CONNECTING) - {"broker"}))
def test_a_verb_that_needs_no_broker_does_not_miss_it(run: Run, verb: str, url_of_nobody: str) -> None:
    run(verb, WORDS[verb], 0, MQTT_AGENT_BROKER=url_of_nobody)


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The URL of a broker that lets only known logins in."""
    require(Mosquitto)
    files = {"passwords": password_line("me", "right")}
    login = {"username": "me", "password": "right"}
    with Mosquitto(["password_file {folder}/passwords"], anonymous=False, files=files, credentials=login) as broker:
        yield broker.url


@pytest.mark.parametrize("verb", CONNECTING)
def test_a_wrong_login(run: Run, place: Terminal, verb: str, guarded: str) -> None:
    place.write("wrong", "wrong")
    words = with_options(verb, "--user", "me", "--password-file", "wrong")
    said = run(verb, words, 1, MQTT_AGENT_BROKER=guarded)
    assert "Next: check --user" in said.out + said.err


@pytest.mark.parametrize("verb", UNKNOWN)
def test_an_unknown_name(run: Run, verb: str) -> None:
    words, code, says = UNKNOWN[verb]
    assert says in run(verb, words, code).err


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_that_does_not_exist(run: Run, verb: str) -> None:
    said = run(verb, with_options(verb, "--jsn"), 2).err
    assert "No such option: --jsn" in said
    assert "--json" in said


def test_a_wrong_command_line_is_told_to_machines_too(run: Run) -> None:
    for verb in ("tools", "acl check"):
        [line] = run(verb, with_options(verb, "--jsn", "--json"), 2).lines
        assert line["error"]["type"] == "UsageError"
        assert "--jsn" in line["error"]["message"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tols",), "Did you mean 'tools'?"),
        (("acl", "chek", "roster.toml"), "Did you mean 'check'?"),
        (("audit", "qery"), "Did you mean 'query'?"),
        (("keys", "shw"), "Did you mean 'show'?"),
        (("context", "lst"), "Did you mean 'list'?"),
        (("token", "isue"), "Did you mean 'issue'?"),
        (("a2a", "srve"), "Did you mean 'serve'?"),
    ],
)
def test_a_verb_that_does_not_exist(place: Terminal, words: tuple[str, ...], says: str) -> None:
    assert says in place.inside(*words, code=2).err


@pytest.mark.parametrize("file", sorted(FILES), ids=" ".join)
def test_a_missing_file(run: Run, file: tuple[str, str]) -> None:
    code = 1 if file == ("acl check", "against") else 2  # the folder is not what the roster says
    said = run(file[0], tuple(word.replace("{}", "missing") for word in FILES[file]), code)
    assert "missing" in said.err + said.out
    assert "Errno" not in said.err


@pytest.mark.parametrize("file", sorted(FILES.keys() - TAKES_ANY_TEXT - {("acl check", "against")}), ids=" ".join)
def test_a_malformed_file(run: Run, place: Terminal, file: tuple[str, str]) -> None:
    place.write("malformed", "{")
    place.write("malformed_module.py", "{")
    code = {("audit query", "files"): 0, ("tasks", "store"): 1}.get(file, 2)
    said = run(file[0], tuple(word.replace("{}", "malformed") for word in FILES[file]), code)
    assert "malformed" in said.err or "could not be read: 1 line" in said.err or "JSON" in said.err


@pytest.mark.parametrize("verb", sorted(set(CONNECTING) | READS_ONLY_A_STORE))
def test_a_missing_token_file_of_each_verb(run: Run, verb: str) -> None:
    assert "the file missing cannot be read" in run(verb, with_options(verb, "--token-file", "missing"), 2).err


def test_the_files_of_the_connection(run: Run, place: Terminal) -> None:
    place.write("malformed", "{")
    with_another = {"--password-file": ("--user", "me"), "--key": ("--certificate", "good.pem")}
    options = {each.opts[0] for each in VERBS["tools"].params if each.metavar == "FILE"}
    assert options == {"--token-file", "--password-file", "--ca", "--certificate", "--key"}
    for option in options:
        said = run("tools", (*with_another.get(option, ()), option, "missing"), 2).err
        assert "the file missing cannot be" in said
    for option in ("--ca", "--certificate", "--key"):
        said = run("tools", (*with_another.get(option, ()), option, "malformed"), 2).err
        assert "malformed" in said
        assert "PEM" in said
    assert "add --certificate FILE" in run("tools", ("--key", "good.key"), 2).err


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("call", ("forecast", "-a", "{")),
        ("call", ("forecast", "city:={")),
        ("delegate", ("writer", "--data", "{")),
        ("answer", ("t-9", "--value", "{")),
    ],
)
def test_malformed_json(run: Run, verb: str, words: tuple[str, ...]) -> None:
    assert "is no JSON" in run(verb, words, 2).err


def test_the_card_of_a_remote_agent_that_is_no_json(run: Run, remote: str) -> None:
    said = run("a2a join", (f"{remote}/nonsense", "--agent-id", "a"), 2).err
    assert "/nonsense has no readable A2A card" in said


def test_a_text_that_was_given_as_json(run: Run) -> None:
    assert "for a text, write city=Oslo" in run("call", ("forecast", "city:=Oslo"), 2).err


def test_a_word_without_a_name_lists_what_the_tool_takes(run: Run) -> None:
    assert "'Oslo' is no argument: write name=value" in run("call", ("forecast", "Oslo"), 2).err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tooling:forcast",), "module tooling has no forcast; did you mean 'forecast'?"),
        (("empty",), "module empty has no ToolServer, no Agent and no function to serve"),
        (("package/part.py",), "name its module, as in package.part, in the folder that contains the package"),
    ],
)
def test_a_module_that_cannot_be_served(run: Run, place: Terminal, words: tuple[str, ...], says: str) -> None:
    place.write("tooling.py", "def forecast(city: str) -> str:\n    return city\n")
    place.write("empty.py", "number = 3\n")
    (place.home / "package").mkdir(exist_ok=True)
    place.write("package/part.py", "from .other import nothing\n")
    said = run("serve", words, 2).err
    assert says in said
    assert "UsageError" not in said


def test_a_verb_of_a_distribution_that_is_not_installed_is_named_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    from mqtt_agent.cli import app
    from typer.testing import CliRunner

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])
    for verb, distribution in (("mcp", "mcp-mqtt-agent"), ("bridge", "mcp-mqtt-agent"), ("a2a", "a2a-mqtt-agent")):
        told = CliRunner().invoke(app.make_app(), [verb, "--http", "80"])
        assert told.exit_code == 2
        assert f"pip install {distribution}" in " ".join(told.output.replace("│", " ").split())
