"""The verb ``console``: a live page of a namespace, in the browser."""

from mqtt_agent.cli.console.verb import add_to, show_console

__all__ = ["add_to", "show_console"]
