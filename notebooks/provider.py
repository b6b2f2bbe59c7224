"""Whose language model the notebooks use: that of the provider whose key is set."""

from __future__ import annotations

import os

MODELS = {
    "OPENAI_API_KEY": ("openai", "gpt-5"),
    "ANTHROPIC_API_KEY": ("anthropic", "claude-sonnet-4-5"),
    "GOOGLE_API_KEY": ("google", "gemini-2.5-flash"),
}


def provider() -> tuple[str, str, str] | None:
    """The name of the key, of the provider and of its model; None without a key. It prints a line that says which."""
    for key, (name, model) in MODELS.items():
        if os.environ.get(key):
            print(f"{key} is set: the model is {model} of {name}.")
            return key, name, model
    print(f"No key is set ({', '.join(MODELS)}): a scripted model answers.")
    return None
