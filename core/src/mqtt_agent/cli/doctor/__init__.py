"""The verb ``doctor``: examines a broker, a login and a namespace, and says for each finding what to do."""

from mqtt_agent.cli.doctor.verb import add_to

__all__ = ["add_to"]
