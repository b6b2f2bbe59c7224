"""A group chat of four AutoGen agents. Two of them are on other hosts: one host is killed, and the other one is frozen.

This command runs the two hosts as separate processes, with an embedded broker and a stand-in for the language model:

    python examples/group_chat.py

To use your own hosts with one common broker, start the researcher and the critic first, and then the chat. You may kill
any of these processes:

    python examples/group_chat.py researcher --broker mqtt://broker.local
    python examples/group_chat.py critic --broker mqtt://broker.local
    python examples/group_chat.py chat --broker mqtt://broker.local
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import ToolCallExecutionEvent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import FunctionCall
from autogen_core.models import AssistantMessage, CreateResult, ModelFamily, ModelInfo, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient
from autogen_mqtt_agent import AgentHost, MQTTAgent, MQTTWorkbench
from mqtt_agent import EmbeddedBroker, ToolServer

PAUSE = 0.5  # seconds that the model waits before each answer
MODEL = ModelInfo(
    vision=False, function_calling=True, json_output=False, structured_output=False, family=ModelFamily.UNKNOWN
)
LOOK_UP = FunctionCall(id="1", name="count_arms", arguments='{"animal": "octopus"}')


class Model(ReplayChatCompletionClient):
    """Chooses each answer by the number of its earlier answers, so a new process answers as the killed one did."""

    async def create(self, messages, **options):
        """Wait, and answer."""
        await asyncio.sleep(PAUSE)
        self._current_index = sum(1 for message in messages if isinstance(message, AssistantMessage))
        return await super().create(messages, **options)


def talks(name: str, *answers: str | CreateResult, **options) -> AssistantAgent:
    return AssistantAgent(name, Model(list(answers), model_info=MODEL), **options)


def researcher(broker: str | None) -> AssistantAgent:
    asks = CreateResult(
        finish_reason="function_calls",
        content=[LOOK_UP],
        usage=RequestUsage(prompt_tokens=0, completion_tokens=0),
        cached=False,
    )
    tools = MQTTWorkbench(broker, "researcher-tools", tools=["count_arms"])
    return talks("researcher", asks, "It has eight arms.", "Yes, all eight.", workbench=tools, max_tool_iterations=2)


def critic(broker: str | None) -> AssistantAgent:
    return talks("critic", "Are you sure?", "Then print it.")


async def chat(broker: str | None, on_message=lambda message: None) -> None:
    planner = talks("planner", "Let us write about octopuses.", "Let us check that.")
    writer = talks("writer", "An octopus has eight arms.", "An octopus has eight arms, we checked.")
    away = [MQTTAgent(name, broker=broker, agent_id="chat", absent="wait") for name in ("researcher", "critic")]
    team = RoundRobinGroupChat([planner, away[0], writer, away[1]], max_turns=8)
    async for message in team.run_stream(task="Write a sentence about an animal."):
        if not isinstance(message, TaskResult):
            print(f"{message.source:>12}: {message.to_text()}", flush=True)
            on_message(message)
    for agent in away:
        await agent.close()


def tool_server(broker: str | None) -> ToolServer:
    server = ToolServer("zoo", broker=broker)

    @server.tool(read_only=True)
    async def count_arms(animal: str) -> int:
        """Count the arms of an animal."""
        return {"octopus": 8}.get(animal, 2)

    return server


async def with_accidents(broker: str, cut_off: float) -> None:
    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, name, "--broker", broker, "--store", f"{folder}/{name}.db"])

    def accident(message) -> None:
        if isinstance(message, ToolCallExecutionEvent):
            print("       (the researcher's host is killed, and started again)", flush=True)
            hosts["researcher"].kill()
            hosts["researcher"].wait()
            hosts["researcher"] = start("researcher")
        elif message.source == "writer" and not frozen:
            print(f"       (the critic's host is frozen for {cut_off:g} s)", flush=True)
            frozen.append(hosts["critic"])
            hosts["critic"].send_signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(cut_off, hosts["critic"].send_signal, signal.SIGCONT)

    frozen: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        hosts = {name: start(name) for name in ("researcher", "critic")}
        try:
            async with tool_server(broker):
                await chat(broker, accident)
        finally:
            for process in hosts.values():
                process.kill()
                process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A group chat of four, two of them on other hosts.")
    parser.add_argument("part", nargs="?", choices=["researcher", "critic", "chat"], help="run only this part")
    parser.add_argument("--broker", help="the broker's URL")
    parser.add_argument("--store", help="the file in which a host stores its conversations")
    parser.add_argument("--cut-off", type=float, default=15.0, help="seconds for which the critic is frozen")
    options = parser.parse_args()
    parts = {"researcher": researcher, "critic": critic}
    if options.part in parts:
        make = parts[options.part]
        host = AgentHost(
            lambda _: make(options.broker), agent_id=options.part, broker=options.broker, store=options.store
        )
        host.run()
    elif options.part == "chat":
        asyncio.run(_chat_and_tools(options.broker))
    else:
        with EmbeddedBroker() as broker:
            asyncio.run(with_accidents(broker.url, options.cut_off))


async def _chat_and_tools(broker: str | None) -> None:
    async with tool_server(broker):
        await chat(broker)


if __name__ == "__main__":
    main()
