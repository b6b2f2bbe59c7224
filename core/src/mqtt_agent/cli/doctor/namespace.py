"""What is wrong in a namespace: names, cards, clocks and sessions."""

from __future__ import annotations

import itertools
import re
import time
from collections import defaultdict
from collections.abc import Iterator

from mqtt_agent.cli.doctor.findings import Finding, listed
from mqtt_agent.cli.doctor.picture import Picture
from mqtt_agent.display.suggestions import counted
from mqtt_agent.wire import read_time

__all__ = ["about_namespace"]

_CLOCK = 5.0
"""Seconds by which two clocks may differ."""
_CONNECTS = 10
_CONNECTS_PER_MINUTE = 1.0
"""A session with more connects than these has a problem."""
_COMMAND_LINE = re.compile(r"mqtt-agent-[0-9a-f]{10}")
"""The name under which mqtt-agent gives tasks without --as. It is offline between two commands, and comes back."""
_CHANGES = 3
"""How often a name may start or come online while one looks."""


def about_namespace(picture: Picture, unheard: set[str], seconds: float) -> Iterator[Finding]:
    """Describe what is wrong.

    Args:
        picture: What is in the namespace.
        unheard: The names that say online, and to which nobody listens.
        seconds: How long the picture was watched.
    """
    before = 0
    for check in (_names(picture), _cards(picture, unheard), _clocks(picture), _sessions(picture, seconds)):
        for finding in check:
            before += finding.level != "note"
            yield finding
    if picture.refused:
        filters = listed(picture.refused)
        message = f"the namespace can be seen only in part, because this login may not subscribe to {filters}"
        yield Finding("rights", "warning", message, f"allow this login to subscribe to {filters}")
    servers, agents = len(picture.online_servers()), sum(picture.is_online(name) for name in picture.agents)
    tools = len({tool for each in picture.online_servers() for tool in each.tools})
    online = f"{counted(tools, 'tool')} of {counted(servers, 'server')}, and {counted(agents, 'agent')}"
    found = f"namespace {picture.topics.namespace!r}: online now: {online}"
    yield Finding("cards", "ok", found + ("" if before else "; nothing is wrong with them"))


def _names(picture: Picture) -> Iterator[Finding]:
    offered, waiting = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for card in picture.online_servers():
        for tool in card.tools:
            offered[tool].add(card.shared_name)
        for tool in card.refused or ():
            waiting[tool].add(card.shared_name)
    for tool, servers in sorted(offered.items()):
        if len(servers) > 1:
            yield Finding(
                "names",
                "wrong",
                f"the tool {tool!r} is served by {listed(sorted(servers))}: a call goes to any of these servers",
                "rename the tool at one of them, or give it a prefix: ToolServer(..., prefix=True); servers that do "
                "the same work get the same name",
            )
    for tool, servers in sorted(waiting.items()):
        owner = listed(sorted(offered[tool])) or "another server"
        yield Finding(
            "names",
            "warning",
            f"the tool {tool!r} of {listed(sorted(servers))} is not served, because {owner} has the name",
            "rename the tool, or give it a prefix: ToolServer(..., prefix=True)",
        )


def _cards(picture: Picture, unheard: set[str]) -> Iterator[Finding]:
    for topic, why in sorted(picture.unreadable.items()):
        yield Finding(
            "cards", "wrong", f"nobody can read the card at {topic}: {why}", "correct the program that wrote it"
        )
    for name in sorted(unheard):
        yield Finding(
            "cards",
            "wrong",
            f"{name!r} says that it is online, and nobody listens there: its process ended, and the broker has "
            "published no Last Will",
            f"start it again, or remove its card: mqtt-agent forget --force {name}",
        )
    online = picture.online_servers()
    served = {tool for each in online for tool in each.tools}
    named = {tool for each in picture.servers.values() for tool in each.tools}
    orphans = [name for name, card in picture.tools.items() if card.status == "online" and name not in served]
    orphans = sorted(name for name in orphans if name in named)
    if orphans:
        message = f"the cards of the tools {listed(orphans)} say online, and no server that is online serves them"
        yield Finding("cards", "warning", message, "mqtt-agent forget " + " ".join(orphans))
    lost = sorted(served - picture.tools.keys())
    if lost and picture.topics.all_tool_cards not in picture.refused:
        message = f"a server lists the tools {listed(lost)}, and the tools have no card: nobody knows their arguments"
        step = "check whether the card is too large for the broker, and whether the server may publish it"
        yield Finding("cards", "wrong", message, step)
    gone = sorted(
        {name for name, each in picture.servers.items() if each.status == "offline"}
        | {name for name in picture.agents if not picture.is_online(name) and not _COMMAND_LINE.fullmatch(name)}
    )
    if gone:
        message = f"the cards of {listed(gone)} are there, and their owners are offline"
        step = "start them again, or remove the cards of those that will not come back: mqtt-agent forget"
        yield Finding("cards", "note", message, step)


def _clocks(picture: Picture) -> Iterator[Finding]:
    wrong = {name: ahead for name, ahead in picture.clocks.items() if abs(ahead) > _CLOCK}
    for name, ahead in sorted(wrong.items()):
        way = "ahead of" if ahead > 0 else "behind"
        yield Finding(
            "clocks",
            "wrong",
            f"the clock of {name!r} is {abs(ahead):.0f} s {way} the clock of this machine: deadlines end at the wrong "
            "time, and after a restart old cards may win over new ones",
            "let both machines keep their time with NTP",
        )
    if len(wrong) >= 2 and len(wrong) == len(picture.clocks):
        message = "every clock that is known differs from the clock of this machine"
        yield Finding("clocks", "wrong", message, "check the clock of this machine first")


def _sessions(picture: Picture, seconds: float) -> Iterator[Finding]:
    advice = "give each process a name of its own; if only one process has the name, look at its log and at the network"
    for name, lives in sorted(picture.lives.items()):
        turns = sum(one != other for one, other in itertools.pairwise(lives))
        processes = len({started for started, _ in lives})
        if turns >= _CHANGES and processes > 1:
            yield Finding(
                "sessions",
                "wrong",
                f"{processes} processes used the name {name!r} within {seconds:.0f} s: they take the session from each "
                "other, or the process starts again and again",
                advice,
            )
    for name, said in sorted({**picture.servers, **picture.statuses}.items()):
        began = read_time(said.started or "")
        if said.status != "online" or said.epoch is None or began is None or said.epoch < _CONNECTS:
            continue
        minutes = max(time.time() - began, 1.0) / 60
        if said.epoch / minutes > _CONNECTS_PER_MINUTE:
            yield Finding(
                "sessions",
                "wrong",
                f"{name!r} has connected {said.epoch} times in {minutes:.1f} minutes: another client takes its session "
                "again and again, or its network breaks",
                advice,
            )
