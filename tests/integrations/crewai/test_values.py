"""Values that JSON cannot carry: the model is told what is wrong, and where."""

from __future__ import annotations

import math

from crewai_mqtt_agent import MQTTToolkit

from .conftest import Toolbox
from .test_toolkit import by_name, failure_of


def test_a_bad_number_is_told_to_the_model_and_a_bad_character_is_mended(
    toolkit: MQTTToolkit, toolbox: Toolbox
) -> None:
    toolbox.add_tool("price", lambda: {"rows": [{"price": math.nan}]})
    toolbox.add_tool("scrape", lambda: "text \ud800")
    tools = by_name(toolkit)
    price = failure_of(tools["price"].run())
    assert "the tool ran" in str(price.message)
    assert "result.rows[0].price is NaN" in str(price.message)
    assert tools["scrape"].run() == "text \ufffd"
    assert tools["greet"].run(name="\ud800") == "Hello \ufffd"
