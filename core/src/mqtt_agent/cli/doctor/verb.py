"""The verb ``doctor``."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from mqtt_agent.cli.doctor.abilities import AGENT_SESSION, about_broker
from mqtt_agent.cli.doctor.asking import ask_all
from mqtt_agent.cli.doctor.exposure import about_exposure
from mqtt_agent.cli.doctor.findings import Finding
from mqtt_agent.cli.doctor.limits import about_sizes
from mqtt_agent.cli.doctor.namespace import about_namespace
from mqtt_agent.cli.doctor.paths import ROLES, Kind, Names, paths_of
from mqtt_agent.cli.doctor.picture import Picture, look
from mqtt_agent.cli.doctor.reaching import about_failure
from mqtt_agent.cli.doctor.rights import about_rights, try_paths
from mqtt_agent.cli.output import ANSWER_WAS_ERROR, NOBODY_THERE, Output
from mqtt_agent.cli.settings import Settings, UsageError
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.suggestions import counted, did_you_mean
from mqtt_agent.errors import BrokerUnreachable, TransportError
from mqtt_agent.transport import BrokerURL, Connection, probe
from mqtt_agent.wire import Topics, validate_identifier

__all__ = ["add_to"]

_TRIED = ("client", "server", "agent")
_STYLES = {"ok": "green", "note": "", "warning": "yellow", "wrong": "red"}


def add_to(app: typer.Typer) -> None:
    """Add the verb ``doctor``."""
    verb(app, "doctor")(doctor)


async def doctor(
    session: Session,
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="What the login must be allowed to be: client, server, agent, auditor or operator. Default: the first "
            "three are tried."
        ),
    ] = None,
    tool: Annotated[
        str | None, typer.Option(help="The tool that the rights are tried with. Default: a made-up name.")
    ] = None,
    peer: Annotated[
        str | None,
        typer.Option(help="The agent to which the login must be allowed to give tasks. Default: a made-up one."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to watch the namespace for changes.", min=0)] = 5.0,
) -> int:
    """Examine the broker, this login and the namespace, and say what is wrong and what to do. It changes nothing."""
    for each in role or ():
        if each not in ROLES:
            raise UsageError(f"there is no role {each!r}{did_you_mean(each, ROLES)}: the roles are {', '.join(ROLES)}")
    if tool is not None:
        validate_identifier(tool, "tool name")
    if peer is not None:
        validate_identifier(peer, "agent id")
    if not session.settings.debug:
        logging.getLogger("mqtt_agent").setLevel(logging.ERROR)  # the findings say it
    place = session.settings.place
    codes: list[int] = []
    for url in BrokerURL.parse_all(place.broker):
        at_one = dataclasses.replace(session.settings, place=dataclasses.replace(place, broker=url))
        codes.append(await _examine(session.out, _Examination(at_one, role, tool, peer, seconds), url))
    return max(codes)


async def _examine(out: Output, examination: _Examination, url: BrokerURL) -> int:
    """Examine one broker, and return the exit code."""
    counts = dict.fromkeys(_STYLES, 0)
    try:
        async for finding in examination.run():
            counts[finding.level] += 1
            _tell(out, finding)
    except TransportError as error:
        _tell(out, await about_failure(error, url))
        return NOBODY_THERE if isinstance(error, BrokerUnreachable) else ANSWER_WAS_ERROR
    out.note("")
    warnings, notes = counted(counts["warning"], "warning"), counted(counts["note"], "note")
    out.note(f"{counts['wrong']} wrong, {warnings}, {notes}", "bold")
    return ANSWER_WAS_ERROR if counts["wrong"] else 0


def _tell(out: Output, finding: Finding) -> None:
    if out.machine:
        out.json(finding.as_json())
        return
    out.line(f"{finding.level:<8}{finding.check:<9}{finding.message}", _STYLES[finding.level])
    if finding.next:
        out.line(f"{'':<17}Next: {finding.next}")


class _Examination:
    """One examination of a broker, a login and a namespace.

    Args:
        settings: Where to connect, and as whom.
        roles: The roles that the login must be allowed to have; None tries all of them.
        tool: The tool to try the rights with; None makes up a name.
        peer: The agent to try the rights with; None makes up a name.
        seconds: How long to watch the namespace.
    """

    def __init__(
        self, settings: Settings, roles: list[str] | None, tool: str | None, peer: str | None, seconds: float
    ) -> None:
        self._settings = settings
        self._place = settings.place
        self._topics = Topics(settings.place.namespace)
        self._roles = roles
        self._seconds = seconds
        self._made_up = f"doctor-{uuid.uuid4().hex[:8]}"
        self._me = settings.name or self._made_up
        self._tool = tool or self._made_up
        self._peer = peer or self._made_up
        self._shares = True

    async def run(self) -> AsyncIterator[Finding]:
        """Examine everything.

        Raises:
            TransportError: No broker answers, or the broker refuses the login.
        """
        asking = self._connection(AGENT_SESSION)
        await asking.start()
        limits = asking.limits
        assert limits is not None
        self._shares = limits.shared_subscriptions
        await asking.stop(end_session=True)
        connection = self._connection()
        await connection.start()
        try:
            yield Finding("login", "ok", f"{connection.url} lets this login in")
            place = f"{self._topics.namespace}/probe"
            if self._settings.client_id is None:  # otherwise the broker allows no second connection
                found = await probe(
                    self._place.broker,
                    namespace=self._topics.namespace,
                    credentials=self._place.credentials,
                    tls=self._place.tls,
                    thorough=self._seconds > 0,
                )
                for finding in about_broker(limits, found, place):
                    yield finding
            async for finding in about_exposure(connection, self._place):
                yield finding
            picture = await look(connection, self._topics)
            watched = asyncio.create_task(asyncio.sleep(self._seconds))
            async for finding in about_sizes(connection, picture, f"{place}/{self._made_up}"):
                yield finding
            if self._settings.client_id is not None:
                await connection.stop(end_session=True)  # the client id is needed
            async for finding in self._rights(picture):
                yield finding
            if self._settings.client_id is not None:
                connection = self._connection()
                await connection.start()
            unheard = await self._silent(connection, picture, watched)
            for finding in about_namespace(picture, unheard, self._seconds):
                yield finding
        finally:
            await connection.stop(end_session=True)

    def _connection(self, session_expiry: int = 0) -> Connection:
        # Never the exact id of an endpoint, unless the user asks for it: the endpoint would lose its session.
        return self._place.connection(self._settings.client_id_of(self._me), session_expiry=session_expiry)

    async def _rights(self, picture: Picture) -> AsyncIterator[Finding]:
        in_use = picture.online_names()
        if self._me in in_use:
            message = f"{self._me!r} is online now, so the rights on some of its topics were not tried"
            yield Finding("rights", "note", message, "stop it first, to try all its rights")
        names = Names(self._me, self._tool, self._peer, self._made_up, in_use)
        kinds: dict[str, tuple[Kind, ...]] = {"require": ("bound",), "off": ("plain",), "prefer": ("plain", "bound")}
        for role in self._roles or _TRIED:
            for number, kind in enumerate(kinds[self._place.bound]):
                connection = self._connection()  # a subscription of one role must not stand in for that of another
                await connection.start()
                try:
                    tried = await try_paths(connection, paths_of(role, self._topics, names, kind, shares=self._shares))
                finally:
                    await connection.stop(end_session=True)
                # With bound="prefer", an endpoint uses sender-bound topics only where it may.
                wanted = bool(self._roles) and number == 0
                for finding in about_rights(role, self._me, kind, tried, wanted=wanted):
                    yield finding

    async def _silent(self, connection: Connection, picture: Picture, watched: asyncio.Task[None]) -> set[str]:
        """The names to which nobody listens, now and after some time: somebody may be about to reconnect."""
        first = await ask_all(connection, picture, self._made_up)
        await watched
        return first & await ask_all(connection, picture, self._made_up) if first else first
