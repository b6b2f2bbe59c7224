"""LangChain's own standard tests for tools, run on a remote tool and on a peer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from brokers import Embedded
from langchain_core.tools import BaseTool
from langchain_mqtt_agent import MQTTToolkit
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from mqtt_agent import MemoryStore, TaskContext
from mqtt_agent.sync import Agent

from .conftest import Toolbox


class RemoteTool:
    @pytest.fixture(autouse=True)
    def connect(self, embedded: Embedded, namespace: str) -> Iterator[None]:
        with Toolbox(embedded.url, namespace), MQTTToolkit(broker=embedded.url, namespace=namespace) as toolkit:
            [self.add] = [tool for tool in toolkit.get_tools() if tool.name == "add"]
            yield

    @property
    def tool_constructor(self) -> BaseTool:
        return self.add

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"a": 2, "b": 3}


class PeerTool:
    @pytest.fixture(autouse=True)
    def connect(self, embedded: Embedded, namespace: str) -> Iterator[None]:
        where: Any = {"broker": embedded.url, "namespace": namespace}
        peer = Agent("writer", store=MemoryStore(), **where)

        @peer.on_task
        async def write(task: TaskContext) -> str:
            return f"{task.prompt}: written"

        with peer, MQTTToolkit(agent_id="planner", peers="all", **where) as toolkit:
            [self.ask] = [tool for tool in toolkit.get_tools() if tool.name == "ask_writer"]
            yield

    @property
    def tool_constructor(self) -> BaseTool:
        return self.ask

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"prompt": "a poem"}


class TestUnit(RemoteTool, ToolsUnitTests):
    pass


class TestPeerUnit(PeerTool, ToolsUnitTests):
    pass


class TestPeerIntegration(PeerTool, ToolsIntegrationTests):
    pass


class TestIntegration(RemoteTool, ToolsIntegrationTests):
    pass
