"""Searches files for a regular expression. ``code_tools`` starts this program as a separate process that can be killed.

The program reads one JSON object from its standard input, and writes JSON objects to its standard output, one per line.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 2_000_000
MAX_LINE = 500


def main() -> None:
    order = json.load(sys.stdin)
    if hasattr(signal, "alarm"):
        # If the parent process is gone, the kernel ends this process after a while, even during a match.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(order["seconds"]) + 2)
    try:
        expression = re.compile(order["pattern"], re.IGNORECASE if order["ignore_case"] else 0)
    except (re.error, OverflowError, RecursionError) as error:
        report(error=f"{order['pattern']!r:.100} is not a regular expression: {error}")
    else:
        search(expression, order)


def search(expression: re.Pattern[str], order: dict[str, Any]) -> None:
    """Report each match when it is found, the progress about twenty times, and the counts at the end."""
    deadline = time.monotonic() + order["seconds"]
    files = order["files"]
    step = max(1, len(files) // 20)
    hits: list[tuple[str, int, int]] = []
    searched = found = 0
    for searched, name in enumerate(files):
        if searched % step == 0:
            report(progress=searched, file=name)
        if time.monotonic() > deadline:
            break
        numbers: list[int] = []
        for number, text in enumerate(text_lines(Path(order["root"], name)) or (), start=1):
            match = expression.search(text)
            if match is None:
                continue
            numbers.append(number)
            if found + len(numbers) <= order["max_matches"]:
                begin = max(0, match.start() - MAX_LINE // 2)
                report(match=[name, number, text[begin : begin + MAX_LINE]])
        if numbers:
            found += len(numbers)
            hits.append((name, len(numbers), numbers[0]))
    else:
        searched = len(files)
    report(searched=searched, found=found, top=sorted(hits, key=lambda hit: -hit[1])[:10])


def text_lines(file: Path) -> list[str] | None:
    """The lines of a text file; None for a file that is binary, very large or unreadable."""
    try:
        size = file.stat().st_size
        # A file with size 0 is not read, because it may be a device that blocks for ever.
        data = file.read_bytes() if 0 < size <= MAX_FILE_BYTES else b""
    except OSError:
        return None
    if size > MAX_FILE_BYTES or b"\0" in data:
        return None
    # Not splitlines(), because it also splits at form feeds and other characters that no editor counts as line ends.
    return data.decode(errors="replace").replace("\r\n", "\n").removesuffix("\n").split("\n") if data else []


def report(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
