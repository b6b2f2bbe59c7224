"""Agents, tool servers and tool clients for the tests of what adapters share."""

from tests.agents.conftest import make_agent, planner, writer
from tests.tools.conftest import make_client, make_server

__all__ = ["make_agent", "make_client", "make_server", "planner", "writer"]
