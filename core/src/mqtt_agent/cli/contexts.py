"""The verbs of ``context``: named sets of options, saved in the user's configuration folder."""

from __future__ import annotations

from typing import Annotated

import typer

from mqtt_agent.cli.settings import CONTEXT_KEYS, Contexts, UsageError
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.suggestions import did_you_mean
from mqtt_agent.transport.url import BrokerURL

__all__ = ["add_to"]

_Name = Annotated[str, typer.Argument(help="The context's name.")]


def add_to(app: typer.Typer) -> None:
    """Add the verb ``context`` with its parts."""
    group = typer.Typer(no_args_is_help=True, help="Save the options of a broker under a name.")
    verb(group, "add", shared=False)(add)
    verb(group, "use", shared=False)(use)
    verb(group, "list", shared=False)(show)
    verb(group, "remove", shared=False)(remove)
    app.add_typer(group, name="context")


def add(
    session: Session,
    name: _Name,
    broker: Annotated[str | None, typer.Option("--broker", "-b", help="The broker's URL, without a password.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="The prefix of all topics.")] = None,
    as_: Annotated[str | None, typer.Option("--as", metavar="NAME", help="The name under which you speak.")] = None,
    user: Annotated[str | None, typer.Option(help="The MQTT user name.")] = None,
    password_file: Annotated[str | None, typer.Option(metavar="FILE", help="The file with the password.")] = None,
    token_file: Annotated[str | None, typer.Option(metavar="FILE", help="The file with a token.")] = None,
    ca: Annotated[str | None, typer.Option(metavar="FILE", help="Certificates to trust (PEM).")] = None,
    certificate: Annotated[str | None, typer.Option(metavar="FILE", help="The own certificate (PEM).")] = None,
    key: Annotated[str | None, typer.Option(metavar="FILE", help="The private key of --certificate.")] = None,
    client_id: Annotated[
        str | None, typer.Option(help="The MQTT client id to which the broker binds the login.")
    ] = None,
    bound: Annotated[str | None, typer.Option(help="Sender-bound topics: prefer, require or off.")] = None,
) -> None:
    """Save a context, and use it from now on. Secrets are not saved: name the files that hold them."""
    if broker is not None:
        try:
            urls = BrokerURL.parse_all(broker)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if any(url.password is not None for url in urls):
            raise UsageError("the URL holds a password, which is not saved: use --user and --password-file")
    given = (broker, namespace, as_, user, password_file, token_file, ca, certificate, key, client_id, bound)
    _, contexts = Contexts().load()
    contexts[name] = {each: value for each, value in zip(CONTEXT_KEYS, given, strict=True) if value is not None}
    Contexts().save(name, contexts)
    session.out.note(f"context {name} is saved and in use")


def use(session: Session, name: _Name) -> None:
    """Use a saved context from now on."""
    _, contexts = Contexts().load()
    _check(name, contexts)
    Contexts().save(name, contexts)
    session.out.note(f"context {name} is in use")


def show(session: Session) -> None:
    """List the saved contexts."""
    current, contexts = Contexts().load()
    if session.out.machine:
        session.out.json({"use": current, "contexts": contexts})
        return
    rows = [
        ("*" if name == current else "", name, *(each.get(key, "") for key in ("broker", "namespace", "as", "user")))
        for name, each in sorted(contexts.items())
    ]
    session.out.table(("", "context", "broker", "namespace", "as", "user"), rows, "there is no saved context")


def remove(session: Session, name: _Name) -> None:
    """Remove a saved context."""
    current, contexts = Contexts().load()
    _check(name, contexts)
    del contexts[name]
    Contexts().save(None if name == current else current, contexts)
    session.out.note(f"context {name} is removed")


def _check(name: str, contexts: dict[str, dict[str, str]]) -> None:
    if name not in contexts:
        raise UsageError(f"there is no context {name!r}{did_you_mean(name, contexts)}: see mqtt-agent context list")
