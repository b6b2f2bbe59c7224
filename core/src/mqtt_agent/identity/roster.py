"""The roster: the programs of one namespace, and what each of them may do, read from a TOML file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from mqtt_agent.errors import InvalidIdentifier, RosterError
from mqtt_agent.identity.lines import line_of
from mqtt_agent.wire import DEFAULT_NAMESPACE, normalize_namespace, validate_identifier

__all__ = ["EVERYBODY", "Kind", "Login", "Program", "Roster"]

Kind = Literal["agent", "client", "server", "auditor", "operator"]
"""A program is an Agent, a ToolClient, a ToolServer, a reader of everything, or a reader that may remove cards."""

EVERYBODY: str = "*"
"""The entry of ``calls``, ``reads`` and ``delegates_to`` that stands for every name."""

_KEYS: dict[str, frozenset[str]] = {
    "agent": frozenset(
        {"kind", "user_id", "client_id", "calls", "reads", "delegates_to", "hosts", "serves", "pool", "members"}
    ),
    "client": frozenset({"kind", "user_id", "client_id", "calls", "reads"}),
    "server": frozenset({"kind", "user_id", "replicas", "serves"}),
    "auditor": frozenset({"kind", "user_id", "client_id"}),
    "operator": frozenset({"kind", "user_id", "client_id"}),
}
"""The keys that a program of each kind may have."""
_LISTS = ("calls", "reads", "delegates_to", "serves", "replicas", "members")
_MAY_BE_ALL = ("calls", "reads", "delegates_to")


@dataclass(frozen=True)
class Program:
    """One program of the roster.

    Attributes:
        name: The agent id, the client's ``agent_id``, the server's name, or the name of an auditor or operator.
        kind: What the program is.
        calls: The tools that the program may call; ``*`` for all.
        reads: The servers that the program may ask for resources, prompts and the contents that their tools share;
            ``*`` for all.
        delegates_to: The agents to which an agent may give tasks; ``*`` for all.
        serves: The tools that a server, or a server hosted by an agent, may offer.
        replicas: The names of a server's replicas. Each replica is a login of its own.
        hosts: The server id, ``name:replica``, of the tool server that an agent hosts on its own connection.
        user_id: The claim ``user_id``: the person or the account for whom the program works.
        client_id: The MQTT client id, when it is not the name.
        pool: Whether several processes have the agent's id (``Agent(pool=True)``).
        members: The names of the members of a pool that have a login each. Without names, all members have one login.
    """

    name: str
    kind: Kind
    calls: tuple[str, ...] = ()
    reads: tuple[str, ...] = (EVERYBODY,)
    delegates_to: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()
    hosts: str | None = None
    user_id: str | None = None
    client_id: str | None = None
    pool: bool = False
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Login:
    """One login at the broker: one program, one replica of a server, or one member of a pool.

    Attributes:
        program: The program.
        user: The MQTT user name. For a replica it is the server id with ``.`` in the place of ``:``; for a member of a
            pool with a login of its own, it is the agent id, ``.`` and the member's name.
        client_id: The MQTT client id to which a broker binds the user. In the client id of a login that all members of
            a pool share, ``*`` stands for the id of the member.
        agent_id: The claim ``agent_id``, and the name in sender-bound topics; None for a server.
        server_id: The claim ``server_id``, and the server's name in sender-bound topics; None without a server.
        org_id: The claim ``org_id``.
    """

    program: Program
    user: str
    client_id: str
    agent_id: str | None = None
    server_id: str | None = None
    org_id: str | None = None

    @property
    def binds_client_id(self) -> bool:
        """Whether the login has one client id. The members of a pool that share a login have several."""
        return not self.program.pool or bool(self.program.members)

    @property
    def claims(self) -> dict[str, Any]:
        """The claims of the login's token. ``tool_id`` is a list when the server offers several tools."""
        tools = list(self.program.serves)
        claims: dict[str, Any] = {
            "agent_id": self.agent_id,
            "server_id": self.server_id,
            "tool_id": tools[0] if len(tools) == 1 else tools or None,
            "user_id": self.program.user_id,
            "org_id": self.org_id,
        }
        return {name: value for name, value in claims.items() if value is not None}


@dataclass(frozen=True)
class Roster:
    """The programs of one namespace.

    Example:
        >>> roster = Roster.parse('''
        ... [programs.planner]
        ... kind = "agent"
        ... calls = ["forecast"]
        ...
        ... [programs.weather]
        ... kind = "server"
        ... replicas = ["1", "2"]
        ... serves = ["forecast"]
        ... ''')
        >>> [login.user for login in roster.logins()]
        ['planner', 'weather.1', 'weather.2']

    Attributes:
        programs: The programs, in the order of the file.
        namespace: The prefix of all topics.
        org_id: The claim ``org_id`` of all programs.
        source: The name of the file, for error messages.
    """

    programs: tuple[Program, ...]
    namespace: str = DEFAULT_NAMESPACE
    org_id: str | None = None
    source: str = field(default="the roster", compare=False)

    @classmethod
    def read(cls, path: str | Path) -> Roster:
        """Read a roster from a TOML file.

        Raises:
            RosterError: The file cannot be read, or its content is wrong. The message names the line.
            ImportError: Python is older than 3.11, and the package ``tomli`` is missing.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise RosterError(f"the roster {path} cannot be read: {why}; name a TOML file in UTF-8") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, source: str = "the roster") -> Roster:
        """Read a roster from a text; see :meth:`read`."""
        toml = _toml()
        try:
            data: dict[str, Any] = toml.loads(text)
        except toml.TOMLDecodeError as error:
            raise RosterError(f"{source} is not TOML: {error}; correct the line") from error
        return _Reader(text, source).roster(data)

    def logins(self) -> list[Login]:
        """Every login: one for each program, one for each replica of a server, and one for each named member."""
        return [login for program in self.programs for login in self._logins_of(program)]

    def login(self, name: str) -> Login:
        """The login with this user name, agent id or server id.

        The name of a server with one replica is enough.

        Raises:
            RosterError: Nobody has this name, or several logins have it.
        """
        logins = self.logins()
        for found in (
            [each for each in logins if name in (each.user, each.agent_id, each.server_id)],
            [each for each in logins if name == each.program.name],
        ):
            if len(found) == 1:
                return found[0]
            if found:
                users = ", ".join(each.user for each in found)
                raise RosterError(f"{name!r} has several logins: name one of {users}")
        known = ", ".join(each.user for each in logins)
        raise RosterError(f"{self.source} has no program {name!r}: add [programs.{name}], or name one of {known}")

    def replicas_of(self, servers: tuple[str, ...]) -> tuple[str, ...]:
        """The ids of the replicas of servers; ``*`` stays as it is.

        Args:
            servers: The names of servers, or ids of replicas.
        """
        if EVERYBODY in servers:
            return (EVERYBODY,)
        ids = [login.server_id for login in self.logins() if login.server_id is not None]
        return tuple(each for each in ids if each in servers or each.partition(":")[0] in servers)

    def _logins_of(self, program: Program) -> Iterable[Login]:
        if program.kind == "server":
            for replica in program.replicas:
                server_id = f"{program.name}:{replica}"
                yield Login(program, server_id.replace(":", "."), server_id, None, server_id, self.org_id)
            return
        speaks = program.kind in ("agent", "client")
        client_id = program.client_id or program.name
        if program.kind == "agent" and program.client_id is None and self.namespace != DEFAULT_NAMESPACE:
            client_id = f"{program.name}@{self.namespace.replace('/', '.')}"  # the id that Agent takes
        for member in program.members or ("*",) if program.pool else ():
            own_id = client_id.replace(program.name, f"{program.name}:{member}", 1)
            user = f"{program.name}.{member}" if program.members else program.name
            yield Login(program, user, own_id, program.name, None, self.org_id)
        if not program.pool:
            yield Login(program, program.name, client_id, program.name if speaks else None, program.hosts, self.org_id)


def _toml() -> Any:
    try:
        return importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError as error:
        raise ImportError("a roster needs tomli on this Python: pip install 'mqtt-agent[identity]'") from error


class _Reader:
    """Makes a roster of what the TOML parser has read; each error names the line."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source

    def _error(self, what: str, table: tuple[str, ...] = (), key: str | None = None) -> RosterError:
        line = line_of(self._text, table, key)
        return RosterError(f"{self._source}{'' if line is None else f', line {line}'}: {what}")

    def roster(self, data: dict[str, Any]) -> Roster:
        for key in data:
            if key not in ("namespace", "org_id", "programs"):
                raise self._error(f"unknown key {key!r}; use namespace, org_id and [programs.NAME]", (), key)
        try:
            namespace = normalize_namespace(data.get("namespace", DEFAULT_NAMESPACE))
        except InvalidIdentifier as error:
            raise self._error(str(error), (), "namespace") from error
        org_id = data.get("org_id")
        if org_id is not None:
            self._name(org_id, "org_id", (), "org_id")
        programs = data.get("programs")
        if not isinstance(programs, dict) or not programs:
            raise self._error('there is no program; add a table [programs.NAME] with kind = "agent"', (), "programs")
        made = tuple(self._program(name, value) for name, value in cast("dict[str, Any]", programs).items())
        roster = Roster(made, namespace, org_id, self._source)
        self._check_users(roster)
        self._check_reads(roster)
        return roster

    def _program(self, name: str, value: Any) -> Program:
        table = ("programs", name)
        self._name(name, "the name of a program", table)
        if not isinstance(value, Mapping):
            raise self._error(f'{name!r} is no program; write [programs.{name}] and kind = "agent"', table)
        values = cast("Mapping[str, Any]", value)
        kind = values.get("kind")
        if kind not in _KEYS:
            given = "has no kind" if kind is None else f"has the unknown kind {kind!r}"
            raise self._error(f"program {name!r} {given}; use one of {', '.join(_KEYS)}", table, "kind")
        for key in values:
            if key not in _KEYS[kind]:
                allowed = ", ".join(sorted(_KEYS[kind] - {"kind"}))
                raise self._error(f"{key!r} has no meaning for the {kind} {name!r}; use {allowed}", table, key)
        lists = {key: self._names(values.get(key), key, table) for key in _LISTS}
        if not isinstance(values.get("pool", False), bool):
            raise self._error(f"pool of {name!r} must be true or false, not {values['pool']!r}", table, "pool")
        for key in ("user_id", "client_id", "hosts"):
            if values.get(key) is not None:
                self._name(values[key], key, table, key)
        program = Program(
            name,
            kind,
            **{
                **lists,
                "replicas": lists["replicas"] or (("1",) if kind == "server" else ()),
                "reads": lists["reads"] if "reads" in values else (EVERYBODY,),
            },
            hosts=values.get("hosts"),
            user_id=values.get("user_id"),
            client_id=values.get("client_id"),
            pool=values.get("pool") is True,
        )
        self._check(program, table)
        return program

    def _check(self, program: Program, table: tuple[str, ...]) -> None:
        """Refuse a program that could do nothing, or more than one name can say."""
        name = program.name
        if program.pool and (program.hosts or program.client_id):
            raise self._error(
                f"agent {name!r} is a pool, which hosts no tool server and has a client id for each member; remove "
                "'hosts' and 'client_id', or 'pool'",
                table,
                "pool",
            )
        if program.members and not program.pool:
            raise self._error(
                f"agent {name!r} has members, and so is a pool; add pool = true, or remove 'members'", table, "members"
            )
        if program.kind == "client" and not program.calls:
            raise self._error(f'client {name!r} may call no tool; add calls = "*" or a list of tools', table)
        if program.kind == "server" and not program.serves:
            raise self._error(f'server {name!r} may offer no tool; add serves = ["TOOL"]', table)
        if bool(program.hosts) != bool(program.serves) and program.kind == "agent":
            raise self._error(
                f'agent {name!r} needs both hosts = "SERVER:REPLICA" and serves = ["TOOL"] to host a tool server',
                table,
                "hosts" if program.hosts else "serves",
            )
        if program.hosts and ":" not in program.hosts:
            raise self._error(
                f'hosts = {program.hosts!r} of agent {name!r} is no server id; write "SERVER:REPLICA"', table, "hosts"
            )
        if EVERYBODY in (*program.serves, *program.replicas, *program.members):
            what = "each tool, each replica and each member"
            raise self._error(f'{name!r} must name {what}; "*" cannot be checked', table)

    def _names(self, value: Any, key: str, table: tuple[str, ...]) -> tuple[str, ...]:
        if value is None:
            return ()
        if value == EVERYBODY and key in _MAY_BE_ALL:
            return (EVERYBODY,)
        if not isinstance(value, list):
            example = '"*" or a list such as ["NAME"]' if key in _MAY_BE_ALL else 'a list such as ["NAME"]'
            raise self._error(f"{key} of {table[-1]!r} must be {example}, not {value!r}", table, key)
        names = cast("list[Any]", value)
        for name in names:
            if name != EVERYBODY:
                self._name(name, f"a name in {key}", table, key)
        return (EVERYBODY,) if EVERYBODY in names and key in _MAY_BE_ALL else tuple(dict.fromkeys(names))

    def _name(self, value: Any, what: str, table: tuple[str, ...], key: str | None = None) -> None:
        try:
            validate_identifier(value, what)
        except InvalidIdentifier as error:
            raise self._error(str(error), table, key) from error

    def _check_reads(self, roster: Roster) -> None:
        """Refuse a server that the roster does not have: a broker cannot know the names of its replicas."""
        for program in roster.programs:
            for server in program.reads:
                if not roster.replicas_of((server,)):
                    what = f"reads of {program.name!r} names {server!r}, and the roster has no such server"
                    raise self._error(f"{what}; add [programs.{server}]", ("programs", program.name), "reads")

    def _check_users(self, roster: Roster) -> None:
        for kind in ("user", "client_id", "server_id"):
            owners: dict[str, str] = {}
            for login in roster.logins():
                name, owner = getattr(login, kind), login.program.name
                if name is None:
                    continue
                if name in owners:
                    raise self._error(
                        f"{owner!r} and {owners[name]!r} have the same {kind.replace('_', ' ')} {name!r};"
                        " rename one of them",
                        ("programs", owner),
                    )
                owners[name] = owner
        servers = {login.server_id: login.program.name for login in roster.logins() if login.server_id}
        for login in roster.logins():
            if login.agent_id in servers:
                raise self._error(
                    f"{login.agent_id!r} is also the server id of a replica of {servers[login.agent_id]!r}, and would"
                    " speak as this server; rename one of them",
                    ("programs", login.program.name),
                )
