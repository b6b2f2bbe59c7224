"""Runs notebooks from top to bottom without an API key, and stores their outputs: run_notebooks.py NOTEBOOK ..."""

from __future__ import annotations

import os
import sys

import nbformat
from nbclient import NotebookClient

for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"):
    os.environ.pop(key, None)  # so that every run gives the same answers
for name in sys.argv[1:]:
    notebook = nbformat.read(name, as_version=4)
    NotebookClient(notebook, timeout=60, coalesce_streams=True, resources={"metadata": {"path": "."}}).execute()
    nbformat.write(notebook, name)
    print(name)
