"""What the verbs of the adapters share that connect the namespace with HTTP: headers, and who the HTTP clients are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mqtt_agent.cli.settings import UsageError, read_secret, usage_error

if TYPE_CHECKING:
    from mqtt_agent.adapting.bearers import Identity

__all__ = ["identities_of", "parse_header"]


def parse_header(text: str) -> tuple[str, str]:
    """The name and the value of an HTTP header that was given as ``NAME: VALUE``.

    Raises:
        UsageError: The text has another form.
    """
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header takes 'NAME: VALUE', not {text!r}")
    return name.strip(), value.strip()


def identities_of(
    bearer_file: str | None,
    callers: str | None,
    *,
    name: str,
    client_id: str | None = None,
    host: str,
    clients: str,
) -> list[Identity]:
    """Who the clients over HTTP are: the callers of a file, or one identity for all clients.

    Args:
        bearer_file: The path of the file with the token that each client must have; None means no token.
        callers: The path of the file of callers; None means one identity.
        name: The agent id of the one identity.
        client_id: The MQTT client id of the one identity; None makes a new id.
        host: The address to listen on. When other machines can reach it, clients need a token.
        clients: What the clients are called, for errors.

    Raises:
        UsageError: A file cannot be used, both files are given, or clients need a token and none is given.
    """
    from mqtt_agent.adapting.bearers import Identity, is_loopback, read_identities

    if callers is not None and bearer_file is not None:
        raise UsageError("give --bearer-file or --callers, and not both")
    try:
        if callers is not None:
            identities = read_identities(Path(callers).expanduser())
        else:
            token = None if bearer_file is None else read_secret(Path(bearer_file))
            identities = [Identity(name, token, client_id=client_id)]
    except (ValueError, OSError) as error:
        raise usage_error(error) from error
    if not identities[0].proofs and not is_loopback(host):
        what = f"other machines can reach {host}, so {clients} need a token"
        raise UsageError(f"{what}: add --bearer-file FILE or --callers FILE")
    return identities
