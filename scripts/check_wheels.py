"""Builds each distribution, checks its files, installs each wheel alone in a new environment, and runs a program there.

    python scripts/check_wheels.py [--quick] [PYTHON ...]

Without PYTHON arguments, the script uses the oldest and the newest Python on the PATH. With each Python, the script
tests the lowest dependencies that the distributions allow, and the newest ones. ``--quick`` tests only this Python,
only the newest dependencies, and not CrewAI.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import distributions
from distributions import run

ROOT = Path(__file__).parents[1]

CORE_ALONE = """
import sys
import mqtt_agent, mqtt_agent.sync
assert not {"iotcore", "opentelemetry", "IPython", "langchain_core"} & set(sys.modules)
try:
    mqtt_agent.EmbeddedBroker()
except ImportError as error:
    assert "pip install 'mqtt-agent[broker]'" in str(error), error
else:
    raise AssertionError("the missing package is not reported")
"""
CORE = """
from mqtt_agent import EmbeddedBroker, MemoryStore
from mqtt_agent.sync import Agent, ToolClient, ToolServer

with EmbeddedBroker() as broker:
    server = ToolServer("weather", broker=broker.url)

    @server.tool(read_only=True)
    def forecast(city: str, days: int = 3) -> dict:
        "Weather forecast for a city."
        return {"city": city, "celsius": [21] * days}

    with server, ToolClient("script", broker=broker.url) as client:
        assert client.call("forecast", {"city": "Oslo"}, wait_online=True)["celsius"] == [21, 21, 21]
        assert "forecast" in client.list_tools()._repr_html_()
    with Agent("writer", broker=broker.url, store="writer.db") as writer:
        writer.on_task(lambda task: task.prompt.upper())
        with Agent("planner", broker=broker.url, store=MemoryStore()) as planner:
            assert planner.request("writer", "hello", wait_online=True, timeout=20) == "HELLO"
"""
CLI = """
import subprocess, sys
from mqtt_agent import EmbeddedBroker
from mqtt_agent.sync import ToolServer

with EmbeddedBroker() as broker:
    server = ToolServer("weather", broker=broker.url)
    server.add_tool("double", lambda number: 2 * number, input_schema={
        "type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]})
    with server:
        words = ["call", "double", "number=21", "--wait", "--broker", broker.url]
        told = subprocess.run([sys.executable, "-m", "mqtt_agent.cli", *words], capture_output=True, text=True)
        assert told.stdout == "42\\n", told
"""
LANGCHAIN = """
from langchain_mqtt_agent import MQTTToolkit
from mqtt_agent import EmbeddedBroker
from mqtt_agent.sync import ToolServer

with EmbeddedBroker() as broker:
    server = ToolServer("weather", broker=broker.url)
    server.add_tool("double", lambda number: 2 * number, description="Doubles a number.", input_schema={
        "type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]})
    with server, MQTTToolkit(broker=broker.url, agent_id="a") as toolkit:
        [tool] = toolkit.get_tools()
        assert tool.invoke({"number": 21}) in (42, "42"), tool.invoke({"number": 21})
"""
AUTOGEN = """
import asyncio
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken
from autogen_mqtt_agent import MQTTAgent, MQTTWorkbench
from mqtt_agent import EmbeddedBroker
from mqtt_agent.sync import Agent, ToolServer

with EmbeddedBroker() as broker:
    server = ToolServer("weather", broker=broker.url)
    server.add_tool("double", lambda number: 2 * number, input_schema={
        "type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]})
    with server, Agent("writer", broker=broker.url, store="writer.db") as writer:
        writer.on_task(lambda task: task.prompt.upper())

        async def main():
            workbench = MQTTWorkbench(broker.url)
            result = await workbench.call_tool("double", {"number": 21}, CancellationToken())
            assert "42" in result.to_text(), result
            await workbench.stop()
            participant = MQTTAgent("writer", broker=broker.url, absent="wait")
            told = await RoundRobinGroupChat([participant], max_turns=1).run(task="hello")
            assert told.messages[-1].to_text() == "USER: HELLO", told
            await participant.close()

        asyncio.run(main())
"""
CREWAI = """
import sys
import crewai_mqtt_agent
assert "crewai" not in sys.modules
from crewai import Crew, Task
from crewai_mqtt_agent import MQTTAgent, MQTTToolkit
from mqtt_agent import EmbeddedBroker
from mqtt_agent.sync import Agent, ToolServer

with EmbeddedBroker() as broker:
    server = ToolServer("weather", broker=broker.url)
    server.add_tool("double", lambda number: 2 * number, input_schema={
        "type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]})
    with server, MQTTToolkit(broker.url, agent_id="a") as toolkit, Agent(
        "writer", broker=broker.url, store="writer.db"
    ) as writer:
        [tool] = toolkit.get_tools()
        assert "42" in str(tool.run(number=21))
        writer.on_task(lambda task: "WRITTEN")
        member = MQTTAgent(role="writer", peer="writer", broker=broker.url, wait_online=True)
        task = Task(description="hello", expected_output="a word", agent=member)
        assert Crew(agents=[member], tasks=[task]).kickoff().raw == "WRITTEN"
        member.close()
"""
MCP = """
import asyncio, sys
from mcp_mqtt_agent import Bridge
from mqtt_agent import EmbeddedBroker, ToolClient

SERVER = '''
from mcp.server.mcpserver import MCPServer
app = MCPServer("numbers")

@app.tool()
def double(number: int) -> int:
    return 2 * number

app.run("stdio")
'''

async def main(url):
    async with Bridge("numbers", [sys.executable, "-c", SERVER], broker=url), ToolClient(broker=url) as client:
        assert await client.call("numbers.double", {"number": 21}, wait_online=True) == {"result": 42}

with EmbeddedBroker() as broker:
    asyncio.run(main(broker.url))
"""
A2A = """
import asyncio
from a2a_mqtt_agent import Gateway, Identity
from mqtt_agent import Agent, EmbeddedBroker, MemoryStore

async def main(url):
    agent = Agent("writer", broker=url, store=MemoryStore())
    agent.on_task(lambda task: task.prompt.upper())
    async with agent, Gateway([Identity("alice")], broker=url, store=MemoryStore()) as gateway:
        while await gateway.names() != ["writer"]:
            await asyncio.sleep(0.05)
        gateway.app("127.0.0.1", 8080)

with EmbeddedBroker() as broker:
    asyncio.run(main(broker.url))
"""
# The distributions to install, and the program that tests them.
CHECKS = [
    (["mqtt_agent"], CORE_ALONE),
    (["mqtt_agent[broker]"], CORE),
    (["mqtt_agent[cli,broker]"], CLI),
    (["langchain_mqtt_agent", "mqtt_agent[broker]"], LANGCHAIN),
    (["autogen_mqtt_agent", "mqtt_agent[broker]"], AUTOGEN),
    (["crewai_mqtt_agent", "mqtt_agent[broker]"], CREWAI),
    (["mcp_mqtt_agent", "langchain_mqtt_agent", "mqtt_agent[broker]"], MCP),
    (["a2a_mqtt_agent", "mqtt_agent[broker]"], A2A),
]
# These settings prevent CrewAI from contacting servers.
QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}


def main() -> None:
    """Run the checks that the command line asks for."""
    parser = argparse.ArgumentParser(prog="check_wheels", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only this Python, the newest dependencies, no CrewAI; one check with the oldest",
    )
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    options = parser.parse_args()
    pythons = options.pythons or oldest_and_newest()
    if options.quick and not options.pythons:
        pythons = [sys.executable, *(each for each in pythons[:1] if minor_of(each) < sys.version_info.minor)]
    with tempfile.TemporaryDirectory(prefix="mqtt-agent-wheels-") as folder:
        built = Path(folder, "built")
        distributions.build(ROOT, built)
        distributions.check(ROOT, built)
        print("ok  each wheel and sdist has its version and the licence", flush=True)
        wheels = {file.name.split("-")[0]: file for file in built.glob("*.whl")}
        for python in pythons:
            for lowest in (False,) if options.quick else (True, False):
                for number, (names, program) in enumerate(CHECKS):
                    if options.quick and not options.pythons and python != sys.executable and program is not CLI:
                        continue  # one program shows whether an older Python can run the core and the command line
                    if names[0].startswith("crewai") and (options.quick or not takes_crewai(python)):
                        continue  # CrewAI is large; for a quick check, the tests of `make crewai` are enough
                    place = Path(folder, f"{len(list(Path(folder).iterdir()))}-{number}")
                    check(python, lowest, [wheel(wheels, name) for name in names], program, place)


def oldest_and_newest() -> list[str]:
    """The oldest and the newest supported Python on the PATH, or of pyenv."""
    found: list[str] = []
    for minor in range(10, 20):
        name = f"python3.{minor}"
        places = [shutil.which(name), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}")]
        # pyenv puts programs on the PATH that only say which version to choose
        found += [str(place) for place in places if place is not None and runs(place)][:1]
    return [found[0], found[-1]] if len(found) > 1 else found or [sys.executable]


def runs(python: str | Path) -> bool:
    """Whether a Python can be started."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def minor_of(python: str) -> int:
    """The minor version of a Python, such as 11."""
    command = [python, "-c", "import sys; print(sys.version_info.minor)"]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def takes_crewai(python: str) -> bool:
    """Whether CrewAI supports this Python."""
    command = [python, "-c", "import sys; sys.exit(sys.version_info >= (3, 14))"]
    return subprocess.run(command, check=False).returncode == 0


def wheel(wheels: dict[str, Path], name: str) -> str:
    """The requirement to install: the wheel's file, with the extras of ``name``."""
    distribution, bracket, extras = name.partition("[")
    return f"{distribution.replace('_', '-')}{bracket}{extras} @ {wheels[distribution].as_uri()}"


def check(python: str, lowest: bool, wheels: list[str], program: str, place: Path) -> None:
    """Install only these wheels of the project in a new environment, and run a program there."""
    began = time.monotonic()
    uv = uv_command()
    run(*uv, "venv", "--quiet", "--python", shutil.which(python) or python, place)
    inside = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    resolution = "lowest-direct" if lowest else "highest"
    run(*uv, "pip", "install", "--quiet", "--python", inside, "--resolution", resolution, *wheels)
    run(inside, "-I", "-c", program, cwd=place, **QUIET)
    names = " + ".join(each.split(" @ ")[0] for each in wheels)
    version = subprocess.run([inside, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"ok  {version:14} {resolution:13} {names}  ({time.monotonic() - began:.0f} s)", flush=True)


def uv_command() -> list[str]:
    """The command that runs uv, which is needed because pip cannot choose the lowest versions."""
    if importlib.util.find_spec("uv") is None and shutil.which("uv") is None:
        run(sys.executable, "-m", "pip", "install", "--quiet", "uv")
    return [sys.executable, "-m", "uv"] if shutil.which("uv") is None else ["uv"]


if __name__ == "__main__":
    main()
