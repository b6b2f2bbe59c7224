"""Runs notebooks from top to bottom without a key, and keeps what they show: run_notebooks.py NOTEBOOK ..."""

from __future__ import annotations

import os
import sys

import nbformat
from nbclient import NotebookClient

for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"):
    os.environ.pop(key, None)  # so that everybody gets the same answers
for name in sys.argv[1:]:
    notebook = nbformat.read(name, as_version=4)
    NotebookClient(notebook, timeout=60, coalesce_streams=True, resources={"metadata": {"path": "."}}).execute()
    nbformat.write(notebook, name)
    print(name)
