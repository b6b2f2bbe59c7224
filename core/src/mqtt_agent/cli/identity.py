"""The verbs ``acl`` and ``token``: a broker's configuration, and tokens, from a roster."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Any

import typer

from mqtt_agent.cli.output import ANSWER_WAS_ERROR
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session, group_with_default, verb
from mqtt_agent.display.suggestions import counted, did_you_mean
from mqtt_agent.identity import (
    BROKERS,
    Plan,
    Profile,
    Roster,
    claims_of,
    differences,
    issue,
    plan_for,
    read_passwords,
)

__all__ = ["add_to"]

_RosterFile = Annotated[Path, typer.Argument(metavar="ROSTER", help="The roster, a TOML file; see docs/identity.md.")]
_For = Annotated[str | None, typer.Option("--for", metavar="BROKER", help=f"One of {', '.join(BROKERS)}.")]
_ProfileOption = Annotated[str, typer.Option("--profile", help="bound, or mixed to allow the plain topics too.")]
_SECRET = stat.S_IRUSR | stat.S_IWUSR


def add_to(app: typer.Typer) -> None:
    """Add the verbs ``acl`` and ``token``."""
    acl = typer.Typer(
        help="Make a broker's access rules from a roster, explain them, or check them: acl ROSTER --for BROKER.",
        no_args_is_help=True,
        cls=group_with_default("write"),
    )
    verb(acl, "write", shared=False)(write)
    verb(acl, "explain", shared=False)(explain)
    verb(acl, "check", shared=False)(check)
    app.add_typer(acl, name="acl")
    token = typer.Typer(help="Make tokens (JWT) with the claims of a roster.", no_args_is_help=True)
    verb(token, "issue", shared=False)(issue_token)
    app.add_typer(token, name="token")


def write(
    session: Session,
    roster: _RosterFile,
    broker: _For = None,
    profile: _ProfileOption = "bound",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="The folder for the files. Default: print.")
    ] = None,
    passwords: Annotated[
        Path | None, typer.Option("--passwords", metavar="FILE", help="For Mosquitto: a file with lines USER:PASSWORD.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="For mosquitto: no patterns, but lines for each login.")
    ] = False,
    version: Annotated[
        str, typer.Option("--broker-version", help="For mosquitto-dynsec: from 2.1 on, roles with %u and %c.")
    ] = "2.0",
) -> None:
    """Write the configuration of a broker: who may publish and subscribe to what."""
    if broker is None:
        raise UsageError(f"name the broker with --for: {', '.join(BROKERS)}")
    options: dict[str, Any] = {}
    if broker.startswith("mosquitto"):
        options["passwords"] = None if passwords is None else read_passwords(_text(passwords), str(passwords))
        if broker == "mosquitto":
            options["exact"] = exact
        else:
            options["variables"] = _is_at_least(version, (2, 1))
        if output is not None:
            options["folder"] = str(output.absolute())
    plan = _plan(broker, Roster.read(roster), profile, **options)
    for name, text in plan.files.items():
        if output is None:
            session.out.json({"file": name, "text": text}) if session.out.machine else session.out.text(
                f"# {name}\n{text}" if len(plan.files) > 1 else text
            )
        else:
            output.mkdir(parents=True, exist_ok=True)
            _write(output / name, text)
            session.out.json({"file": str(output / name)}) if session.out.machine else session.out.text(output / name)
    for note in plan.notes:
        session.out.note(f"note: {note}")


def explain(
    session: Session,
    roster: _RosterFile,
    name: Annotated[str, typer.Argument(help="A user name, agent id or server id of the roster.")],
    action: Annotated[str, typer.Argument(help="publish or subscribe.")],
    topic: Annotated[str, typer.Argument(help="A topic, or a topic filter to subscribe to.")],
    broker: _For = None,
    profile: _ProfileOption = "bound",
) -> int:
    """Say which rule decides whether a program may publish or subscribe to a topic, for each broker."""
    if action not in ("publish", "subscribe"):
        raise UsageError(f"{action!r} is no action; write publish or subscribe")
    read = Roster.read(roster)
    decisions = [_plan(each, read, profile).explain(name, action, topic) for each in ([broker] if broker else BROKERS)]
    if session.out.machine:
        for each in decisions:
            rule = None if each.rule is None else each.rule.text
            session.out.json({"broker": each.broker, "allowed": each.allowed, "rule": rule, "why": each.why})
    else:
        rows = [(each.broker, "yes" if each.allowed else "no", each.why.partition(": ")[2]) for each in decisions]
        session.out.table(("broker", "allowed", "because"), rows, "")
    return 0 if all(each.allowed for each in decisions) else ANSWER_WAS_ERROR


def check(
    session: Session,
    roster: _RosterFile,
    broker: _For = None,
    profile: _ProfileOption = "bound",
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FOLDER", help="Also compare the files of this folder.")
    ] = None,
) -> int:
    """Check a roster, and say what each broker's rules allow beyond it."""
    read = Roster.read(roster)
    faults = 0
    for each in [broker] if broker else BROKERS:
        plan = _plan(each, read, profile)
        for found in differences(plan):
            faults += not found.allowed
            says = "allows more than the roster" if found.allowed else "lacks a right"
            line = f"{each}: {says}: {found.user} {found.action} {found.topic}"
            if session.out.machine:
                session.out.json({"broker": each, **vars(found)})
            else:
                session.out.text(line)
        if against is not None:
            faults += sum(_differs(session, each, against, *file) for file in sorted(plan.files.items()))
    session.out.note(
        f"{counted(len(read.programs), 'program')}, {counted(len(read.logins()), 'login')}: "
        + (counted(faults, "fault") if faults else "good")
    )
    return ANSWER_WAS_ERROR if faults else 0


def issue_token(
    session: Session,
    roster: _RosterFile,
    name: Annotated[str, typer.Argument(help="A user name, agent id or server id of the roster.")],
    key_file: Annotated[
        Path, typer.Option("--key-file", metavar="FILE", help="The secret of HS256, or a private key (PEM).")
    ],
    algorithm: Annotated[str, typer.Option("--algorithm", help="HS256, RS256, ES256 or EdDSA.")] = "HS256",
    key_id: Annotated[str | None, typer.Option("--key-id", help="The kid in the token's header.")] = None,
    lifetime: Annotated[float, typer.Option("--lifetime", help="Seconds until the token expires.")] = 3600.0,
    host: Annotated[str, typer.Option("--host", help="ejabberd's virtual host, for the claim jid.")] = "localhost",
    profile: _ProfileOption = "bound",
) -> None:
    """Print a token (JWT) with the claims agent_id, server_id, tool_id, user_id and org_id of a program."""
    read = Roster.read(roster)
    claims = claims_of(read, read.login(name), lifetime=lifetime, host=host, profile=_profile(profile))
    token = issue(claims, _text(key_file).strip(), algorithm, key_id=key_id)
    if session.out.machine:
        session.out.json({"token": token, "claims": claims})
    else:
        session.out.text(token)


def _plan(broker: str, roster: Roster, profile: str, **options: Any) -> Plan:
    if broker not in BROKERS:
        raise UsageError(
            f"no rules can be made for {broker!r}{did_you_mean(broker, BROKERS)}: use one of {', '.join(BROKERS)}"
        )
    return plan_for(broker, roster, _profile(profile), **options)


def _profile(text: str) -> Profile:
    if text not in ("bound", "mixed"):
        raise UsageError(f"{text!r} is no profile; write bound or mixed")
    return text


def _is_at_least(version: str, least: tuple[int, ...]) -> bool:
    try:
        return tuple(int(part) for part in version.split(".")[:2]) >= least
    except ValueError as error:
        raise UsageError(f"--broker-version {version!r} is no version; write 2.0 or 2.1") from error


def _differs(session: Session, broker: str, folder: Path, name: str, text: str) -> int:
    """Report a file that is not what the roster says. A file with password hashes is new each time."""
    if name in ("passwords", "dynamic-security.json", "mosquitto.conf"):
        return 0
    path = folder / name
    if path.exists() and _text(path) == text:
        return 0
    session.out.text(
        f"{broker}: {path} is not what the roster says; write it again with mqtt-agent acl ROSTER --for {broker}"
    )
    return 1


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner may read, because it can hold password hashes."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _SECRET), "w", encoding="utf-8") as file:
        file.write(text)
