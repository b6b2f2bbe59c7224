"""The guides of docs/ are correct: their programs run, and their configurations can be read."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from brokers import Embedded
from databases import shared_postgres
from mqtt_agent import MemoryStore
from mqtt_agent.sync import Agent, ToolClient
from support import kill
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """A broker, and the server of how-to.md in a process."""
    folder = tmp_path_factory.mktemp("kitchen")
    pieces = [each for each in blocks("how-to.md", "python") if each.startswith("# server.py\n")]
    (folder / "server.py").write_text("\n\n".join([*pieces, "server.run()\n"]))
    with Embedded() as broker, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MQTT_AGENT_BROKER", broker.url)
        patch.setenv("XDG_STATE_HOME", str(folder))
        process = subprocess.Popen([sys.executable, "server.py"], cwd=folder, env=dict(os.environ))
        with ToolClient() as client:
            client.call("bake", {"loaves": 0}, wait_online=True)
        yield broker
        kill(process)


CLIENTS = re.findall(
    r"^```python\n# client\.py\n(.*?)^```\n\n```text\n(.*?)^```",
    (DOCS / "how-to.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def test_each_client_of_the_how_to_page_prints_what_the_page_says(
    kitchen: Embedded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(CLIENTS) == sum(each.startswith("# client.py\n") for each in blocks("how-to.md", "python")) >= 7
    for program, prints in CLIENTS:
        exec(program, {})
        assert capsys.readouterr().out == prints


async def test_the_web_application_of_the_how_to_page_calls_the_tool(kitchen: Embedded) -> None:
    httpx = pytest.importorskip("httpx2")
    pytest.importorskip("starlette")
    made: dict[str, Any] = {}
    [program] = [each for each in blocks("how-to.md", "python") if each.startswith("# app.py\n")]
    exec(program, made)
    app = made["app"]
    async with made["lifespan"](app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
        assert (await web.get("/order", params={"dish": "soup"})).json() == "soup"


def test_the_test_suite_of_the_testing_page_passes(tmp_path: Path) -> None:
    for piece in blocks("testing.md", "python"):
        name, rest = piece.removeprefix("# ").split("\n", 1)
        with (tmp_path / name).open("a") as file:
            file.write(rest + "\n\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert "4 passed" in ran.stdout, ran.stdout + ran.stderr


def served(words: list[str]) -> None:
    """Check a command of the deployment page: the command line must take it."""
    from mqtt_agent.cli.app import make_app

    assert words[0].rpartition("/")[2] == "mqtt-agent"
    asked = CliRunner().invoke(make_app(), [*words[1:], "--help"])  # the words before --help are checked first
    assert (asked.exit_code, words[1]) == (0, "serve"), asked.output
    module, _, name = words[2].partition(":")
    assert module
    assert name


def manifest(name: str) -> str:
    """The file of the deployment page whose first comment begins with a name."""
    [text] = [each for each in blocks("deployment.md", "yaml") if each.startswith(f"# {name}")]
    return text


def test_the_systemd_unit_can_be_read_and_starts_a_command_that_exists(tmp_path: Path) -> None:
    [text] = blocks("deployment.md", "ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    served(unit["Service"]["ExecStart"].split())
    assert float(unit["Service"]["TimeoutStopSec"]) > 10, "longer than drain_timeout"
    if shutil.which("systemd-analyze") is None:
        return
    file = tmp_path / "weather.service"
    file.write_text(text.replace("/opt/weather/.venv/bin/mqtt-agent", shutil.which("true") or "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_containers_start_commands_that_exist() -> None:
    [text] = blocks("deployment.md", "dockerfile")
    lines = [line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    assert [word for word, _ in lines] == ["FROM", "RUN", "WORKDIR", "RUN", "COPY", "USER", "CMD"]
    served(re.findall(r'"([^"]*)"', lines[-1][1]))
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load(manifest("compose.yaml\n"))
    assert set(compose["services"]["weather"]["depends_on"]) <= compose["services"].keys()
    assert "broker-data:/mosquitto/data" in compose["services"]["broker"]["volumes"]
    assert set(compose["volumes"]) == {"broker-data"}


def test_the_kubernetes_objects_fit_together() -> None:
    yaml = pytest.importorskip("yaml")
    files = ("weather.yaml", "researcher.yaml")
    objects = [each for name in files for each in yaml.safe_load_all(manifest(name))]
    assert [(each["apiVersion"], each["kind"]) for each in objects] == [
        ("v1", "Secret"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
    ]
    for each in objects[1:]:
        spec, pod = each["spec"], each["spec"]["template"]
        assert spec["selector"]["matchLabels"] == pod["metadata"]["labels"]
        assert pod["spec"]["terminationGracePeriodSeconds"] > 10, "longer than drain_timeout"
        [container] = pod["spec"]["containers"]
        names = {variable["name"] for variable in container["env"]}
        assert "MQTT_AGENT_BROKER" in names
        if "command" in container:
            served(container["command"])
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    assert objects[0]["metadata"]["name"] == "weather-broker"


def pool_program() -> str:
    [text] = blocks("deployment.md", "python")
    return text


def drain_timeout() -> int:
    """Seconds that a member of the pool waits for its handlers."""
    return int(re.findall(r"drain_timeout=(\d+)", pool_program())[0])


def needed_by_members() -> set[str]:
    """The environment variables of a member: of its program, of the command line, and of PostgreSQL's driver."""
    return {*re.findall(r'os\.environ\["(\w+)"\]', pool_program()), "MQTT_AGENT_BROKER", "PGPASSWORD"}


def test_the_services_of_the_pool_fit_together() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load(manifest("compose.yaml of a pool"))
    services = compose["services"]
    members, database = services["researcher"], services["database"]
    served(members["command"])
    assert members["depends_on"] == {each: {"condition": "service_healthy"} for each in ("broker", "database")}
    assert all(services[name]["healthcheck"]["test"][0] == "CMD" for name in members["depends_on"])
    assert members["environment"].keys() == needed_by_members()
    assert urlsplit(members["environment"]["MQTT_AGENT_BROKER"]).hostname in services
    store = urlsplit(members["environment"]["RESEARCHER_STORE"])
    given = database["environment"]
    assert (store.hostname, store.username, store.path) == (
        "database",
        given["POSTGRES_USER"],
        f"/{given['POSTGRES_DB']}",
    )
    assert members["environment"]["PGPASSWORD"] == given["POSTGRES_PASSWORD"]
    assert members["deploy"]["replicas"] > 1
    assert int(members["stop_grace_period"].removesuffix("s")) > drain_timeout() + 10
    mounted = {volume.partition(":")[0] for each in services.values() for volume in each.get("volumes", ())}
    assert {name for name in mounted if not name.startswith(".")} == compose["volumes"].keys()


def test_the_kubernetes_objects_of_the_pool_fit_together() -> None:
    yaml = pytest.importorskip("yaml")
    secret, deployment, budget = yaml.safe_load_all(manifest("pool.yaml"))
    assert [(each["apiVersion"], each["kind"]) for each in (secret, deployment, budget)] == [
        ("v1", "Secret"),
        ("apps/v1", "Deployment"),
        ("policy/v1", "PodDisruptionBudget"),
    ]
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = [spec["selector"], budget["spec"]["selector"], pod["topologySpreadConstraints"][0]["labelSelector"]]
    assert [each["matchLabels"] for each in selectors] == [labels] * 3
    assert pod["terminationGracePeriodSeconds"] > drain_timeout() + 10
    assert (
        spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0 < budget["spec"]["maxUnavailable"] < spec["replicas"]
    )
    [container] = pod["containers"]
    served(container["command"])
    assert {each["name"] for each in container["env"]} == needed_by_members()
    keys = [each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each]
    assert {each["name"] for each in keys} == {secret["metadata"]["name"]}
    assert {each["key"] for each in keys} == secret["stringData"].keys()


@pytest.mark.long
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("terminationGracePeriodSeconds: 60", "terminationGracePeriodSecond: 60", "terminationGracePeriodSecond"),
        ("minReadySeconds: 30", "minReadySeconds: soon", "minReadySeconds"),
        ("stop_grace_period: 60s", "stop_grace: 60s", "stop_grace"),
        ("  broker-data: {}", "  broker-data: {}\n  broker-data: {}", "duplication"),
    ],
)
def test_the_linters_of_the_manifests_find_a_mistake(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    page = (DOCS / "deployment.md").read_text()
    assert right in page
    (tmp_path / "page.md").write_text(page.replace(right, wrong))
    command = [sys.executable, str(ROOT / "scripts" / "check_manifests.py"), str(tmp_path / "page.md")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert told in ran.stderr


@pytest.mark.long
def test_a_member_of_the_deployment_page_does_a_task(tmp_path: Path) -> None:
    store = shared_postgres().new_database()
    (tmp_path / "researcher.py").write_text(pool_program())
    with Embedded() as broker:
        values = {"MQTT_AGENT_BROKER": broker.url, "RESEARCHER_STORE": store, "PGPASSWORD": "secret"}
        assert values.keys() == needed_by_members()
        command = [sys.executable, "-m", "mqtt_agent.cli", "serve", "researcher:agent"]
        process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **values})
        try:
            with Agent("planner", broker=broker.url, store=MemoryStore()) as planner:
                assert planner.request("researcher", "cats", wait_online=True, timeout=60) == "notes on cats"
            process.terminate()
            assert process.wait(60) == 0
        finally:
            kill(process)


def test_a_server_that_finds_no_broker_ends_with_the_exit_code_of_the_page(tmp_path: Path, url_of_nobody: str) -> None:
    assert "exit code 3" in (DOCS / "deployment.md").read_text()
    (tmp_path / "prices.py").write_text("def price() -> int:\n    return 1\n")
    command = [sys.executable, "-m", "mqtt_agent.cli", "serve", "prices", "--broker", url_of_nobody]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "no MQTT broker answers" in ended.stderr


def test_the_messages_of_the_installation_page_are_ours() -> None:
    page = (DOCS / "install.md").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "core/src").rglob("*.py"))
    for message in ("EmbeddedBroker needs the package iotcore", "no MQTT broker answers at "):
        assert message in page
        assert message in sources
