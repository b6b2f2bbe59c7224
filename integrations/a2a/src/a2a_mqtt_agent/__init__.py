"""A2A over HTTP and MQTT 5: agents over MQTT as A2A servers, and remote A2A agents as agents over MQTT."""

from typing import TYPE_CHECKING, Any

from a2a_mqtt_agent.version import __version__

if TYPE_CHECKING:
    from mqtt_agent.adapting.bearers import Identity

    from a2a_mqtt_agent.gateway import Gateway
    from a2a_mqtt_agent.joining import RemoteAgent
    from a2a_mqtt_agent.proving import Login
    from a2a_mqtt_agent.tls import ServerTLS
    from a2a_mqtt_agent.tokens import TokenIssuer

__all__ = ["Gateway", "Identity", "Login", "RemoteAgent", "ServerTLS", "TokenIssuer", "__version__"]


def __getattr__(name: str) -> Any:
    # The command line imports this package for every verb, and the A2A SDK takes a second to import.
    if name == "Gateway":
        from a2a_mqtt_agent.gateway import Gateway

        return Gateway
    if name == "Identity":
        from mqtt_agent.adapting.bearers import Identity

        return Identity
    if name == "Login":
        from a2a_mqtt_agent.proving import Login

        return Login
    if name == "RemoteAgent":
        from a2a_mqtt_agent.joining import RemoteAgent

        return RemoteAgent
    if name == "ServerTLS":
        from a2a_mqtt_agent.tls import ServerTLS

        return ServerTLS
    if name == "TokenIssuer":
        from a2a_mqtt_agent.tokens import TokenIssuer

        return TokenIssuer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
