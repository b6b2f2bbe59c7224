"""Says in sentences what a list lacks, such as the tools of a server that was lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ["AGENT", "SERVER", "first_few", "sentences"]

SERVER: str = "server {}: {}"
"""How a sentence says that a list lacks a server."""
AGENT: str = "agent {} {}"
"""How a sentence says that a list lacks an agent."""

_LONGEST, _MOST, _FEW = 300, 1000, 20
"""Characters of a sentence, and how many sentences there are: a stranger may write them."""


def sentences(form: str, missing: Mapping[str, object]) -> list[str]:
    """What a list lacks, for people and for programs: one sentence for each of up to 1,000 names.

    Args:
        form: How a sentence is made of a name and the reason: :data:`SERVER` or :data:`AGENT`.
        missing: Whose entries are missing, by name, each with the reason. The most important one comes first.
    """
    said = [form.format(name, why) for name, why in missing.items()]
    said = [each if len(each) <= _LONGEST else each[: _LONGEST - 3] + "..." for each in said]
    return said if len(said) <= _MOST else [*said[: _MOST - 1], f"and {len(said) - _MOST + 1} more"]


def first_few(incomplete: Sequence[str], first: Collection[str] = ()) -> list[str]:
    """As many of the sentences as a log or a message can show: up to 20.

    Args:
        incomplete: All sentences.
        first: Those that must be among the first ones.
    """
    if len(incomplete) <= _FEW:
        return list(incomplete)
    said = [*(each for each in incomplete if each in first), *(each for each in incomplete if each not in first)]
    return [*said[: _FEW - 1], f"and {len(said) - _FEW + 1} more"]
