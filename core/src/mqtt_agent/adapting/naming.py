"""The names by which language models call tools.

A model remembers a name from one turn to the next. So each name is made from the tool's own name alone: the name is the
same whichever other tools are online, and two tools never get the same name.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

__all__ = ["model_name", "plain", "prefixed_name"]

_MAX_NAME = 64
_LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DIGEST_CHARACTERS = 12
_SUFFIX = re.compile(rf"_x[a-z2-7]{{{_DIGEST_CHARACTERS}}}$")


def plain(name: str) -> str:
    """Replace the characters that the providers of language models refuse in a tool's name."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name)


def model_name(name: str, form: Callable[[str], str] = plain) -> str:
    """Make a name that language models accept: 1 to 64 of the characters ``a-zA-Z0-9_-``.

    A name that models accept stays as it is. Any other name gets a suffix, which is made from the text of the name. So
    two different names never become the same name. A name that already ends with such a suffix gets another suffix.

    Example:
        >>> model_name("get_forecast"), model_name("db.clear"), model_name("天气")
        ('get_forecast', 'db_clear_xwy6a3qhn3n7r', 'tool_xjwkhgjkhh5nv')

    Args:
        name: The name of a tool, or another text that stands for exactly one tool.
        form: Brings a text into the form that a framework demands. The function may give different texts the same
            form.
    """
    if _LEGAL.fullmatch(name) and form(name) == name and not _SUFFIX.search(name):
        return name
    digest = base64.b32encode(hashlib.sha256(name.encode(errors="surrogatepass")).digest()).decode().lower()
    suffix = f"_x{digest[:_DIGEST_CHARACTERS]}"
    readable = form(name)[: _MAX_NAME - len(suffix)].strip("_-")
    return (readable or "tool") + suffix


def prefixed_name(prefix: str, name: str, form: Callable[[str], str] = plain) -> str:
    """Make a name for a language model that begins with a prefix, for example the name of the tool's server.

    Example:
        >>> prefixed_name("github", "search")
        'github_search'

    Args:
        prefix: The text before the name.
        name: The name of the tool.
        form: See :func:`model_name`.
    """
    if "_" in prefix:  # otherwise `a` and `b_c` would get the same name as `a_b` and `c`
        return model_name(f"{prefix}/{name}", form)
    return model_name(f"{prefix}_{name}", form)
