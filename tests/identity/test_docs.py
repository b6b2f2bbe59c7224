"""docs/identity.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from mqtt_agent.cli.app import make_app
from mqtt_agent.identity import RIGHTS, Roster, differences, plan_for

from . import attempts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "identity.md").read_text()
KINDS = ("agent", "client", "server", "auditor", "operator")


def rights_table(plain: bool, unshared: bool, pooled: bool) -> str:
    """The table of the document, made from the only list of rights."""
    lines = ["| kind | may | topic | for |", "|---|---|---|---|"]
    for right in RIGHTS:
        if (right.plain, right.unshared, right.pooled) == (plain, unshared, pooled):
            lines.append(f"| {right.part} | {right.action} | `{right.topic.removeprefix('{ns}/')}` | {right.why} |")
    return "\n".join(lines)


def test_the_tables_of_rights_are_those_of_the_code() -> None:
    tables = {
        "bound": (False, False, False),
        "plain": (True, False, False),
        "unshared": (False, True, False),
        "pool": (False, False, True),
        "plain pool": (True, False, True),
    }
    for name, flags in tables.items():
        shown = re.search(rf"<!-- rights: {name} -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)
        assert shown is not None
        assert shown[1].strip() == rights_table(*flags)


def test_the_roster_of_the_document_is_a_roster() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    roster = Roster.parse(text)
    assert {program.kind for program in roster.programs} == set(KINDS)
    for broker in ("mosquitto", "mosquitto-dynsec", "ejabberd", "emqx", "cloudsignal"):
        assert [each for each in differences(plan_for(broker, roster)) if not each.allowed] == []


def test_each_gap_that_the_attack_suite_pins_down_is_named_and_no_other() -> None:
    named = set(re.findall(r"^\| \*\*([a-z-]+)\*\* \|", PAGE, re.MULTILINE))
    assert named == attempts.GAPS


def test_the_commands_of_the_document_exist() -> None:
    verbs = {group.name for group in make_app().registered_groups}
    for command in re.findall(r"^mqtt-agent (.*)$", PAGE, re.MULTILINE):
        assert command.split()[0] in {"acl", "token", "keys", "audit"} & verbs, command
