"""The verbs ``a2a serve`` and ``a2a join`` of the command line ``mqtt-agent``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from mqtt_agent.cli.doors import identities_of, parse_header
from mqtt_agent.cli.settings import UsageError, read_secret, usage_error
from mqtt_agent.cli.verbs import Session, verb

if TYPE_CHECKING:
    from a2a_mqtt_agent.tls import ServerTLS
    from a2a_mqtt_agent.tokens import TokenIssuer

__all__ = ["add_a2a"]

_NAME = "a2a-gateway"

_Store = Annotated[
    str | None, typer.Option(help="Where tasks are kept: a file, or a PostgreSQL URL. Default: the user's state.")
]
_URL = Annotated[str | None, typer.Option(help="The address at which A2A clients reach the gateway, for the cards.")]
_BearerFile = Annotated[
    str | None,
    typer.Option("--bearer-file", metavar="FILE", help="The file with the token that each A2A client must have."),
]
_Callers = Annotated[
    str | None,
    typer.Option("--callers", metavar="FILE", help='Callers with names and tokens: {"alice": {"bearer": "..."}}.'),
]
_AllowHost = Annotated[
    list[str] | None, typer.Option("--allow-host", help="Another name of this host in Host and Origin headers.")
]
_ApiKeyIn = Annotated[
    list[str] | None,
    typer.Option("--api-key-in", metavar="PLACE", help="Where API keys may be: header (the default), query, cookie."),
]
_CardKey = Annotated[
    str | None, typer.Option(metavar="FILE", help="The private key that signs the cards: `mqtt-agent keys new`.")
]
_Tokens = Annotated[
    str | None,
    typer.Option(metavar="FILE", help='The issuer of OAuth 2 tokens: {"issuer", "audience", "jwks", ...}.'),
]
_TLSCert = Annotated[str | None, typer.Option(metavar="FILE", help="The gateway's TLS certificate.")]
_TLSKey = Annotated[str | None, typer.Option(metavar="FILE", help="The private key of the certificate.")]
_ClientCA = Annotated[
    str | None, typer.Option(metavar="FILE", help="The authority that signs the certificates of clients.")
]


def add_a2a(app: typer.Typer) -> None:
    """Add the verbs ``a2a serve`` and ``a2a join``."""
    group = typer.Typer(name="a2a", help="Connect with A2A agents over HTTP.", no_args_is_help=True)
    verb(group, "serve")(serve)
    verb(group, "join")(join)
    app.add_typer(group)


async def serve(
    session: Session,
    peer: Annotated[list[str] | None, typer.Argument(help="The agents to show. Default: all of them.")] = None,
    port: Annotated[int, typer.Option(help="The port for HTTP.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    grpc: Annotated[
        int | None, typer.Option("--grpc", metavar="PORT", help="The port for gRPC.", min=0, max=65535)
    ] = None,
    url: _URL = None,
    bearer_file: _BearerFile = None,
    callers: _Callers = None,
    allow_host: _AllowHost = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="Show A2A 0.3 in the cards too.")] = False,
    allow_private_push: Annotated[
        bool, typer.Option("--allow-private-push", help="Allow push notifications to private addresses.")
    ] = False,
    card_key: _CardKey = None,
    tokens: _Tokens = None,
    api_key_in: _ApiKeyIn = None,
    tls_cert: _TLSCert = None,
    tls_key: _TLSKey = None,
    client_ca: _ClientCA = None,
    store: _Store = None,
) -> int:
    """Show agents of the namespace to A2A clients over HTTP, until Ctrl-C."""
    from a2a_mqtt_agent.gateway import Gateway  # imports the A2A SDK, which takes a second

    name = session.settings.name or _NAME
    identities = identities_of(bearer_file, callers, name=name, host=host, clients="A2A clients")
    place = session.settings.place.as_arguments()
    try:
        gateway = Gateway(
            identities,
            peer or (),
            url=url,
            store=store,
            legacy=legacy,
            allow_private_push=allow_private_push,
            key=card_key,
            issuer=None if tokens is None else _issuer(tokens),
            tls_server=_tls(tls_cert, tls_key, client_ca),
            api_key_in=cast("Any", api_key_in or ("header",)),
            **place,
        )
    except (ValueError, OSError, ImportError) as error:
        raise usage_error(error) from error
    async with gateway:
        scheme = "http" if tls_cert is None else "https"

        def say(port: int) -> None:
            session.out.note(f"serves A2A clients at {scheme}://{host}:{port}/agents/NAME; Ctrl-C stops it")

        try:
            await gateway.serve(host, port, allowed=allow_host or (), grpc_port=grpc, on_listening=say)
        except (OSError, ImportError) as error:
            raise usage_error(error) from error
    return 0


def _issuer(path: str) -> TokenIssuer:
    from a2a_mqtt_agent.tokens import TokenIssuer

    return TokenIssuer.load(path)


def _tls(certificate: str | None, key: str | None, client_ca: str | None) -> ServerTLS | None:
    from a2a_mqtt_agent.tls import ServerTLS

    if certificate is None or key is None:
        if (certificate, key, client_ca) != (None, None, None):
            raise UsageError("TLS needs both --tls-cert and --tls-key")
        return None
    server = ServerTLS(certificate, key, client_ca)
    server.check()
    return server


async def join(
    session: Session,
    url: Annotated[str, typer.Argument(help="The address of the A2A agent, or of its card.")],
    agent_id: Annotated[str, typer.Option("--agent-id", help="The name of the agent at the MQTT side.")],
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="'NAME: VALUE'", help="An HTTP header for the A2A agent.")
    ] = None,
    bearer_file: Annotated[
        str | None, typer.Option("--bearer-file", metavar="FILE", help="The file with the token for the A2A agent.")
    ] = None,
    login: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help='What proves who speaks: {"api_key": ...}, {"token_url": ...}, ...; see the guide.'
        ),
    ] = None,
    card_trust: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A JWK or JWKS file: the card needs a signature of a key in such a file."),
    ] = None,
    answer_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0.001, help="How long the A2A agent may take for its first answer. Default: 600."
        ),
    ] = None,
    store: _Store = None,
) -> int:
    """Let a remote A2A agent do tasks as an agent of the namespace, until Ctrl-C."""
    from a2a_mqtt_agent.joining import RemoteAgent  # imports the A2A SDK, which takes a second
    from a2a_mqtt_agent.proving import Login

    headers = dict(parse_header(each) for each in header or ())
    if bearer_file is not None:
        headers["Authorization"] = f"Bearer {read_secret(Path(bearer_file))}"
    place = session.settings.place.as_arguments()
    try:
        proofs = None if login is None else Login.load(login)
        trust = card_trust or ()
        limits = {} if answer_timeout is None else {"answer_timeout": answer_timeout}
        known = {"headers": headers, "login": proofs, "trust": trust, "store": store}
        remote = await RemoteAgent.at(url, agent_id, **known, **limits, **place)
    except (OSError, ValueError, ImportError) as error:
        raise usage_error(error) from error
    await remote.run(lambda: session.out.note(f"{agent_id} does tasks at {url}; Ctrl-C stops it"))
    return 0
