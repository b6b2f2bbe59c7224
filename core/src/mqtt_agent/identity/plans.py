"""What all broker plans have in common: their files, their rules, and which rule decides about a topic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mqtt_agent.identity.filters import covers, without_share
from mqtt_agent.identity.rights import Profile
from mqtt_agent.identity.rights_table import Action
from mqtt_agent.identity.roster import Login, Roster

__all__ = ["PLAIN_NOTE", "Decision", "Plan", "Rule", "Variables"]

Variables = Mapping[str, Callable[[Login], "str | None"]]
"""What the variables in a broker's rules stand for; None when a login has no such value."""

PLAIN_NOTE: str = (
    "The profile mixed has plain topics: on them, a login can speak as any other one, and read the partial results,"
    " events and single results of all others. Only what arrives on a sender-bound topic proves its sender."
)
"""The note of every plan of the profile ``mixed``."""


@dataclass(frozen=True)
class Rule:
    """One rule of a broker, as this package understands the broker. All rules allow; the rest is denied.

    Attributes:
        text: The rule as it stands in the file.
        action: What the rule allows.
        topic: The topic filter, with the broker's own variables.
        users: The logins that the rule is for, by user name; None when the rule is for every login that has its
            variables.
    """

    text: str
    action: Action
    topic: str
    users: frozenset[str] | None = None


@dataclass(frozen=True)
class Decision:
    """What a broker does with one attempt.

    Attributes:
        broker: The broker, as in ``--for``.
        allowed: Whether the broker allows the attempt.
        rule: The rule that decides; None when no rule allows the attempt.
        why: One sentence for people.
    """

    broker: str
    allowed: bool
    rule: Rule | None
    why: str


@dataclass
class Plan:
    """The configuration of one broker for a roster.

    Attributes:
        broker: The broker, as in ``--for``.
        roster: The roster.
        profile: Whether plain topics are allowed too.
        files: The files to write, by name.
        rules: The rules in the files, in the order in which the broker looks at them.
        notes: What the broker cannot enforce, and what else the operator must do, one sentence each.
        left_out: The user names for which the broker's rules cannot be made from a roster.
        variables: The variables in the rules.
        shares: Whether the broker has shared subscriptions.
        sees_shares: Whether the broker compares ``$share/group/`` of a subscription with its rules.
        checks_subscriptions: Whether the broker refuses subscriptions. Otherwise it only withholds messages.
        plus_takes_hash: Whether ``+`` in a rule also covers ``#`` in a subscription.
        ignores_case: Whether the broker ignores case where it compares a level with a variable.
    """

    broker: str
    roster: Roster
    profile: Profile
    files: dict[str, str] = field(default_factory=dict[str, str])
    rules: list[Rule] = field(default_factory=list[Rule])
    notes: list[str] = field(default_factory=list[str])
    left_out: frozenset[str] = frozenset()
    variables: Variables = field(default_factory=dict[str, Callable[[Login], "str | None"]])
    shares: bool = True
    sees_shares: bool = True
    checks_subscriptions: bool = True
    plus_takes_hash: bool = False
    ignores_case: bool = False

    def explain(self, name: str, action: Action, topic: str) -> Decision:
        """Say which rule decides about an attempt.

        Args:
            name: A user name, agent id or server id of the roster.
            action: ``publish`` or ``subscribe``.
            topic: The topic of the message, or the topic filter of the subscription.

        Raises:
            RosterError: The roster has no such name.
        """
        return self.decide(self.roster.login(name), action, topic)

    def decide(self, login: Login, action: Action, topic: str) -> Decision:
        """Say which rule decides about an attempt of a login; see :meth:`explain`."""
        asked = topic if self.sees_shares else without_share(topic)
        delivery = action == "subscribe" and not self.checks_subscriptions
        for rule in self.rules:
            if rule.action == action and (rule.users is None or login.user in rule.users):
                filled = self._filled(rule.topic, login)
                seen = self._folded(rule.topic, asked)
                if filled is not None and covers(filled, seen, plus_takes_hash=self.plus_takes_hash):
                    does = "delivers the messages" if delivery else "allows it"
                    return Decision(self.broker, True, rule, f"{self.broker} {does}: {rule.text}")
        if delivery:
            why = f"{self.broker} accepts every subscription, but no rule lets {login.user} read all these messages"
        else:
            why = f"{self.broker} refuses it: no rule lets {login.user} {action} there"
        return Decision(self.broker, False, None, why)

    def _folded(self, topic: str, asked: str) -> str:
        """What the broker compares with the rule: in lower case where the rule has a variable, if it ignores case."""
        if not self.ignores_case:
            return asked
        levels = dict(enumerate(topic.split("/")))
        return "/".join(
            level.lower() if levels.get(place) in self.variables else level
            for place, level in enumerate(asked.split("/"))
        )

    def _filled(self, topic: str, login: Login) -> str | None:
        for variable, value_of in self.variables.items():
            if variable in topic:
                value = value_of(login)
                if value is None:
                    return None
                topic = topic.replace(variable, value)
        return topic
