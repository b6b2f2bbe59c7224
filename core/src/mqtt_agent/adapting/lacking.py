"""What lists lack, as messages and logs of adapters show it."""

from mqtt_agent.display.lacking import AGENT, SERVER, first_few, sentences

__all__ = ["AGENT", "SERVER", "first_few", "sentences"]
