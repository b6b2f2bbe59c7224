"""Input schemas as language models and LangChain take them."""

from mqtt_agent.tools.schemas import NO_ARGUMENTS, speakable

__all__ = ["NO_ARGUMENTS", "speakable"]
