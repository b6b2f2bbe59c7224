"""Values that JSON cannot carry: the model is told what is wrong, and where."""

from __future__ import annotations

import math

from autogen_mqtt_agent import MQTTWorkbench
from support import becomes, soon

from .conftest import Toolbox
from .test_workbench import names


async def test_a_bad_number_is_told_to_the_model_and_a_bad_character_is_mended(
    workbench: MQTTWorkbench, toolbox: Toolbox
) -> None:
    toolbox.add_tool("price", lambda: {"rows": [{"price": math.nan}]})
    toolbox.add_tool("scrape", lambda: "text \ud800")
    toolbox.add_tool("echo", lambda arguments: arguments, input_schema={"type": "object"})

    async def listed() -> bool:
        return {"price", "scrape", "echo"} <= await names(workbench)

    await becomes(listed)
    price = await soon(workbench.call_tool("price"))
    assert price.is_error
    assert "the tool ran" in price.to_text()
    assert "result.rows[0].price is NaN" in price.to_text()
    scrape = await soon(workbench.call_tool("scrape"))
    assert (scrape.is_error, scrape.to_text()) == (False, "text \ufffd")
    echo = await soon(workbench.call_tool("echo", {"text": "\ud800"}))
    assert (echo.is_error, "\ufffd" in echo.to_text()) == (False, True)
    infinite = await soon(workbench.call_tool("echo", {"number": math.inf}))
    assert infinite.is_error
    assert "arguments.number is Infinity" in infinite.to_text()
