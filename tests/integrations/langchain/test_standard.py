"""LangChain's own standard tests for tools, run on a remote tool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from brokers import Embedded
from langchain_core.tools import BaseTool
from langchain_mqtt_agent import MQTTToolkit
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

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


class TestUnit(RemoteTool, ToolsUnitTests):
    pass


class TestIntegration(RemoteTool, ToolsIntegrationTests):
    pass
