"""Values that JSON cannot carry: the model is told what is wrong, and where."""

from __future__ import annotations

import math
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_mqtt_agent import MQTTToolkit

from .conftest import Toolbox
from .test_toolkit import ASK, agent_that


def test_a_bad_number_is_told_to_the_model_and_a_bad_character_is_mended(
    toolkit: MQTTToolkit, toolbox: Toolbox
) -> None:
    toolbox.add_tool("price", lambda: {"rows": [{"price": math.nan}]})
    toolbox.add_tool("scrape", lambda: "text \ud800")
    toolbox.add_tool("echo", lambda arguments: arguments, input_schema={"type": "object"})
    agent = agent_that(
        toolkit,
        *(
            ("price", {}),
            ("scrape", {}),
            ("echo", {"text": "\ud800"}),
            ("echo", {"number": math.inf}),
            ("greet", {"name": "Ada"}),
        ),
    )
    state: dict[str, Any] = agent.invoke(ASK)
    price, scrape, echo, infinite, greet = [each for each in state["messages"] if isinstance(each, ToolMessage)]
    assert price.status == "error"
    assert "the tool ran" in price.text
    assert "result.rows[0].price is NaN" in price.text
    assert (scrape.status, scrape.text) == ("success", "text \ufffd")
    assert (echo.status, echo.text) == ("success", '{"text": "\ufffd"}')
    assert infinite.status == "error"
    assert "arguments.number is Infinity" in infinite.text
    assert greet.text == "Hello Ada"
