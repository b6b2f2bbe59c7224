"""The typed options of hosts are the arguments of an agent."""

from __future__ import annotations

import inspect

from mqtt_agent import Agent
from mqtt_agent.adapting.options import AgentOptions
from typing_extensions import get_type_hints


def test_the_options_are_the_arguments_of_an_agent_with_the_same_types() -> None:
    arguments = inspect.signature(Agent.__init__).parameters.values()
    optional = {each.name for each in arguments if each.kind is each.KEYWORD_ONLY}
    types = get_type_hints(inspect.unwrap(Agent.__init__))
    assert get_type_hints(AgentOptions) == {name: types[name] for name in optional}
