"""The verbs of ``keys``: private keys to sign with, and the file of the keys that are trusted."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mqtt_agent.cli.settings import UsageError, usage_error
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.suggestions import counted
from mqtt_agent.errors import InvalidIdentifier
from mqtt_agent.identity import Roster

if TYPE_CHECKING:
    from mqtt_agent.identity.keys import PublicKey

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verb ``keys`` with its parts."""
    group = typer.Typer(no_args_is_help=True, help="Make keys that sign messages, and say which keys are trusted.")
    verb(group, "new", shared=False)(new)
    verb(group, "trust", shared=False)(trust)
    verb(group, "state", shared=False)(state)
    verb(group, "show", shared=False)(show)
    app.add_typer(group, name="keys")


def new(
    session: Session,
    name: Annotated[str, typer.Argument(help="The agent id, client id or server id that signs with the key.")],
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="NAME", help="A further name that the key proves, such as a hosted server."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The file to write. Default: NAME.jwk.")
    ] = None,
) -> None:
    """Make a private key and write it to a JWK file that only you may read. Keep it secret, and never copy it."""
    _require_library()
    from mqtt_agent.identity.keys import PrivateKey

    try:
        key = PrivateKey.new(name, also or ())
    except InvalidIdentifier as error:
        raise UsageError(str(error)) from error
    path = file or Path(f"{name}.jwk")
    try:
        key.save(path)
    except FileExistsError as error:
        raise UsageError(f"{path} exists: a key is never overwritten; choose another file with --file") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    if session.out.machine:
        session.out.json({"file": str(path), "key": key.public.to_jwk()})
        return
    session.out.text(path)
    session.out.note(f"the private key of {name} (id {key.public.kid})")
    session.out.note(f"next: let the others trust it, with: mqtt-agent keys trust trusted.jwks {path}")


def trust(
    session: Session,
    trusted: Annotated[Path, typer.Argument(metavar="TRUSTED", help="The JWKS file; it is made if it is missing.")],
    keys: Annotated[list[Path], typer.Argument(metavar="KEY...", help="JWK files, private or public.")],
    roster: Annotated[
        Path | None,
        typer.Option("--roster", metavar="ROSTER", help="Let each key offer only the tools that this roster names."),
    ] = None,
    issuer: Annotated[
        bool, typer.Option("--issuer", help="These are keys of issuers: what they state about other keys is believed.")
    ] = False,
) -> None:
    """Add the public halves of keys to the file of trusted keys. Give this file to all programs: it has no secret."""
    _require_library()
    from mqtt_agent.identity.keys import TrustedKeys

    try:
        known = TrustedKeys.load(trusted) if trusted.exists() else TrustedKeys()
        read = None if roster is None else Roster.read(roster)
        added = [_public(path).as_issuer() if issuer else _pinned(_public(path), read) for path in keys]
        for key in added:
            known.replace(key)
        known.save(trusted)
    except (ValueError, OSError) as error:
        raise usage_error(error) from error
    for key in added:
        _tell(session, key)
    session.out.note(f"{trusted} has {counted(len(known), 'key')}")


def state(
    session: Session,
    key: Annotated[Path, typer.Argument(metavar="KEY", help="The JWK file of the program's key, private or public.")],
    issuer: Annotated[Path, typer.Option("--issuer", metavar="FILE", help="The JWK file of the issuer's private key.")],
    roster: Annotated[Path, typer.Option("--roster", metavar="ROSTER", help="Says what the program may offer.")],
    days: Annotated[float, typer.Option("--days", min=0.001, max=3650, help="How long the statement holds.")] = 30,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The file to write. Default: KEY.jwt.")
    ] = None,
) -> None:
    """State, with the key of an issuer, that a program has a key. Whoever trusts the issuer then believes it."""
    _require_library()
    from mqtt_agent.identity.keys import PrivateKey
    from mqtt_agent.identity.statements import make_statement

    path = file or key.with_suffix(".jwt")
    try:
        public, signer, read = _public(key), PrivateKey.load(issuer), Roster.read(roster)
        text = make_statement(public, signer, read, now=time.time(), lifetime=days * 86400)
        path.write_text(text + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        raise usage_error(error) from error
    if session.out.machine:
        session.out.json({"file": str(path), "name": public.name, "issuer": signer.name, "days": days})
        return
    session.out.text(path)
    session.out.note(f"{signer.name} states for {days:g} days that {public.name} has the key {public.kid}")
    session.out.note(f"next: the others trust the issuer: mqtt-agent keys trust trusted.jwks --issuer {issuer}")


def show(session: Session, file: Annotated[Path, typer.Argument(metavar="FILE", help="A JWK or a JWKS file.")]) -> None:
    """List the keys of a file: the name that each key stands for, and its id."""
    _require_library()
    from mqtt_agent.identity.keys import TrustedKeys

    try:
        found = TrustedKeys.load(file)
    except ValueError as not_a_set:
        try:
            found = TrustedKeys([_public(file)])
        except (ValueError, OSError):
            raise UsageError(str(not_a_set)) from not_a_set
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    if session.out.machine:
        for key in found:
            session.out.json(key.to_jwk())
    else:
        session.out.table(("name", "id"), [(key.name, key.kid) for key in found], f"{file} has no key")


def _tell(session: Session, key: PublicKey) -> None:
    if session.out.machine:
        session.out.json(key.to_jwk())
    else:
        if key.issuer:
            session.out.text(f"trusted: {key.name} (id {key.kid}) as an issuer of statements")
            return
        tools = "" if key.serves is None else f", may offer: {', '.join(sorted(key.serves)) or 'no tool'}"
        session.out.text(f"trusted: {key.name} (id {key.kid}){tools}")


def _public(path: Path) -> PublicKey:
    from mqtt_agent.identity.keys import PublicKey

    return PublicKey.load(path)


def _pinned(key: PublicKey, roster: Roster | None) -> PublicKey:
    """The key with the tools that the program of its name may offer."""
    if roster is None:
        return key
    program = next((each for each in roster.programs if each.name == key.name), None)
    if program is None:
        raise ValueError(f"{roster.source} has no program {key.name!r}: add the program, or leave out --roster")
    return key.pinned(program.serves)


def _require_library() -> None:
    if importlib.util.find_spec("nacl") is None:
        raise UsageError("keys need PyNaCl: pip install 'mqtt-agent[signed]'")
