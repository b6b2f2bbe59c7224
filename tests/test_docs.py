"""The pages of docs/ are correct: their messages exist, their code runs, and the site has no broken link."""

from __future__ import annotations

import ast
import fcntl
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from brokers import Embedded, Mosquitto, password_line
from mqtt_agent.sync import Agent

from tests.browsers import started_chromium
from tests.certificates import Authority

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOLE = "…"


def templates() -> Iterator[str]:
    """Every string of the source, with a placeholder for each inserted value."""
    for folder in ("core/src", "integrations"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def headings(page: str) -> list[str]:
    return re.findall(r"^### (.+)$", (DOCS / page).read_text(), re.MULTILINE)


def test_each_message_in_troubleshooting_is_one_of_ours() -> None:
    known = list(templates())
    messages = [re.fullmatch("`(.*)`", heading) for heading in headings("troubleshooting.md")]
    quoted = [match[1] for match in messages if match]
    assert len(quoted) > 20
    for message in quoted:
        parts = [re.escape(part) for part in message.split(HOLE)]
        pattern, longest = re.compile(".*".join(parts), re.DOTALL), max(message.split(HOLE), key=len)
        assert any(longest in text and pattern.search(text) for text in known), message
        assert len(longest) > 8, f"{message}: says too little to be found"


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("number", "says"),
    [(0, "{'city': 'Oslo', 'celsius': [21, 21, 21]}\n"), (1, "MQTT: chapter 0, chapter 1, chapter 2 on shelf 7\n")],
)
def test_the_first_programs_run(number: int, says: str, tmp_path: Path) -> None:
    program = fences("index.md", "python")[number]
    environment = {name: value for name, value in os.environ.items() if name != "MQTT_AGENT_BROKER"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (says, "")


def test_the_settings_of_production_are_those_of_a_broker_that_works(
    make_mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    [settings] = fences("production.md", "conf")
    lines = [
        line for line in settings.splitlines() if not line.startswith(("listener", "cafile", "certfile", "keyfile"))
    ]
    lines = [line.replace("/etc/mosquitto/", "{folder}/") for line in lines if "anonymous" not in line]
    broker = make_mosquitto(
        [line for line in lines if not line.startswith("persistence_location")],
        anonymous=False,
        files={"acl": "user agent\ntopic readwrite #\n", "passwords": password_line("agent", "secret")},
        credentials={"username": "agent", "password": "secret"},
    )
    url = broker.url.replace("//", "//agent:secret@")
    with (
        Agent("writer", broker=url, store=tmp_path / "1.db") as writer,
        Agent("planner", broker=url, store=tmp_path / "2.db") as planner,
    ):
        writer.on_task(lambda task: "done")
        assert planner.request("writer", "write", wait_online=True, timeout=20) == "done"


def test_the_endpoints_of_production_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = fences("production.md", "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    authority = Authority(tmp_path / "certificates", "test")
    leaf = authority.issue("weather")
    authority.certificate.rename(tmp_path / "ca.pem")
    leaf.certificate.rename(tmp_path / "weather.pem")
    leaf.key.rename(tmp_path / "weather.key")
    made: dict[str, object] = {}
    exec(program, made)
    assert "stopped" in repr(made["server"])
    assert "wss://broker.example" in repr(made["agent"])


def test_the_toolkit_of_a_server_that_forks_is_not_connected_at_the_fork(embedded: Embedded) -> None:
    pytest.importorskip("langchain_mqtt_agent")
    _, program = fences("production.md", "python")
    made: dict[str, Any] = {}
    exec(program.replace("mqtt://localhost:1883", embedded.url), made)
    assert made["tools"] == []
    assert not made["toolkit"].connection.started


def test_all_code_in_docs_is_run_by_a_test() -> None:
    pages = {str(path.relative_to(DOCS)): path.read_text() for path in DOCS.rglob("*.md")}
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    untested = {
        page
        for page, text in pages.items()
        if "```python" in text and not re.search(rf'"(docs/)?{re.escape(page)}"', tests)
    }
    assert untested == set()


def exported(adapter: str) -> list[str]:
    """What an adapter offers beside its version, also one that is not installed here."""
    source = (ROOT / "integrations" / adapter / "src" / f"{adapter}_mqtt_agent" / "__init__.py").read_text()
    [names] = [
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    return [name for name in names if name != "__version__"]


chromium = pytest.fixture(scope="module")(started_chromium)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once for all processes that run tests."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not (shared / "site.built").exists():
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(shared / "site")]
            environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
            built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150)
            assert built.returncode == 0, built.stderr
            (shared / "site.built").touch()
    return shared / "site"


class Page(HTMLParser):
    """What a browser finds on a page of the site."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.classes: set[str] = set()
        self.empty_heads = 0
        self.links: list[tuple[str, str]] = []
        self._cell: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags[tag] += 1
        self.classes |= set(found.get("class", "").split())
        if tag == "th":
            self._cell = ""
        if tag == "a":
            self.links.append((found.get("class", ""), found.get("href", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "th" and self._cell is not None:
            self.empty_heads += not self._cell.strip()
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell += data


@pytest.mark.timeout(180)
def test_the_site_is_built_without_a_broken_link(site: Path) -> None:
    tools = (site / "reference" / "tools.html").read_text()
    for name in ("ToolServer", "ToolClient", "list_tools", "watch_tools", "CallHandle"):
        assert name in tools
    assert "take_partial" not in tools
    for adapter in ("langchain", "autogen", "crewai"):
        page = (site / "reference" / f"{adapter}.html").read_text()
        for name in exported(adapter):
            assert f'id="{adapter}_mqtt_agent.{name}"' in page, "it has a place of its own in the reference"
    pages = "".join(path.read_text() for path in site.rglob("*.html"))
    assert ":class:" not in pages
    assert not re.findall(r'(?:src="|rel="stylesheet" href=")(?:https?:)?//', pages), "it asks nobody else for anything"


@pytest.mark.timeout(180)
def test_each_page_has_one_title_full_table_heads_a_theme_switch_and_a_next_page(site: Path) -> None:
    pages = {str(path.relative_to(site)): Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 50
    assert {name: page.tags["h1"] for name, page in pages.items() if page.tags["h1"] != 1} == {}
    assert {name: page.empty_heads for name, page in pages.items() if page.empty_heads} == {}
    assert {name for name, page in pages.items() if "mermaid" in page.classes} == set(), "it would be shown as source"
    assert {name for name, page in pages.items() if "md-header__option" not in page.classes} == set(), "the switch"
    listed = {name for name in pages if not name.startswith("repository/")}  # the others have no place in the order
    without_next = {name for name in listed if "md-footer__link--next" not in pages[name].classes}
    assert len(without_next) == 1, "only the last page has no next one"
    assert "drawing" in pages["guarantees.html"].classes, "the states of a task are a drawing"


@pytest.mark.timeout(180)
def test_each_notebook_is_a_page_that_other_pages_link_to(site: Path) -> None:
    linked = {href for name in ("index.html", "quickstart.html") for _, href in Page(site / name).links}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        page = site / "tutorials" / f"{path.stem}.html"
        assert f"tutorials/{path.stem}.html" in linked
        assert path.name in {href for _, href in Page(page).links}, "the notebook can be downloaded"


@pytest.mark.timeout(180)
def test_the_reference_shows_values_and_not_the_names_of_constants(site: Path) -> None:
    text = "".join(unescape(re.sub("<[^>]*>", "", path.read_text())) for path in (site / "reference").glob("*.html"))
    assert "timeout: float | None = 60.0" in text
    assert re.findall(r"= ?_?[A-Z]+_[A-Z_]+\b", text) == []


@pytest.mark.timeout(180)
def test_every_verb_is_in_the_reference_of_the_commands(site: Path) -> None:
    from mqtt_agent.cli.app import make_app

    titles = re.findall(r'<h2 id="mqtt-agent-([a-z0-9-]+)"', (site / "reference" / "cli.html").read_text())
    command: Any = typer.main.get_command(make_app())
    assert sorted(titles) == sorted(command.commands)


@pytest.mark.timeout(180)
def test_the_search_works_on_a_site_that_is_opened_from_the_disk(site: Path, chromium: Any) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto((site / "index.html").as_uri())
    page.locator("label.md-header__button[for=__search]").click()
    page.get_by_role("textbox", name="Search").press_sequentially("shared subscriptions")
    page.locator(".md-search-result__link", has_text="Without shared subscriptions").first.wait_for(timeout=30_000)
    width = page.evaluate("document.scrollingElement.scrollWidth")
    assert width <= 390, "the page is not wider than a telephone"
    page.close()
