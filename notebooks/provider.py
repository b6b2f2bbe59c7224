"""Chooses the language model of the notebooks: the model of the provider whose API key is set."""

from __future__ import annotations

import os

MODELS = {
    "OPENAI_API_KEY": ("openai", "gpt-5"),
    "ANTHROPIC_API_KEY": ("anthropic", "claude-sonnet-4-5"),
    "GOOGLE_API_KEY": ("google", "gemini-2.5-flash"),
}


def provider() -> tuple[str, str, str] | None:
    """Return the names of the key, the provider and the model, or None without a key; print the choice."""
    for key, (name, model) in MODELS.items():
        if os.environ.get(key):
            print(f"{key} is set: the model is {model} of {name}.")
            return key, name, model
    print(f"No key is set ({', '.join(MODELS)}): a scripted model answers.")
    return None
