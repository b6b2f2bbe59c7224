"""A tool server that knows nothing of the crew. Usage: harvest_tools.py BROKER NAMESPACE."""

import sys

from mqtt_agent import ToolServer

broker, namespace = sys.argv[1:3]
server = ToolServer("farm", broker=broker, namespace=namespace)

TONS = {2022: 40, 2023: 44, 2024: 61}
EUROS = {2022: 210, 2023: 205, 2024: 180}


@server.tool(read_only=True)
def harvest(year: int) -> dict:
    """Tons of apples that were harvested in a year."""
    return {"year": year, "tons": TONS[year]}


@server.tool(read_only=True)
def price(year: int) -> dict:
    """Euros that a ton of apples brought in a year."""
    return {"year": year, "euros": EUROS[year]}


server.run()
