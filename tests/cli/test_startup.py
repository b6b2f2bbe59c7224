"""The command line starts fast: a verb pays only for the packages that it needs itself."""

from __future__ import annotations

import subprocess
import sys

from .terminal import PATIENCE


def test_no_verb_imports_the_packages_of_another_verb() -> None:
    heavy = (
        "mcp",
        "mcp_types",
        "a2a",
        "google",
        "grpc",
        "uvicorn",
        "jwt",
        "cryptography",
        "nacl",
        "psycopg",
        "langchain_core",
        "autogen_core",
        "starlette",
    )
    program = f"""
import sys
from mqtt_agent.cli.app import make_app
make_app()
print(sorted(set({heavy!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
