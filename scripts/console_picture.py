"""Draws docs/pictures/console.png: the console while the programs of README.md run. Needs Chromium.

.venv/bin/python scripts/console_picture.py [FILE]
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "pictures" / "console.png"
SIZE = {"width": 1100, "height": 700}
SECONDS = 60.0


def programs() -> dict[str, str]:
    """The programs of README.md that have a file name, by that name."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return {name: text for text, name in re.findall(r"```python\n(# (\w+\.py).*?)```", readme, re.DOTALL)}


@contextlib.contextmanager
def running(words: list[str], folder: Path, until: str) -> Iterator[str]:
    """Run a command in the folder, and give what it has written until the text came."""
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        written = ""
        while until not in written:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{' '.join(words)} ended: {written}")
            written += line
        yield written
    finally:
        process.terminate()
        process.wait()


def draw(page: Any, picture: Path, command: list[str], folder: Path) -> None:
    """Do what the README says, wait until the page shows it, and take the picture."""
    page.locator("#agents").get_by_text("traveller").first.wait_for()
    page.locator("#tools").get_by_text("forecast").first.wait_for()
    for words in (["call", "forecast", "city=Oslo", "days=2"], ["delegate", "traveller", "Oslo"]):
        subprocess.run([*command, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    page.locator("#tasks tr", has_text="traveller").get_by_text("completed").first.wait_for()
    page.locator("#calls tr", has_text="forecast").nth(1).get_by_text("completed").wait_for()
    page.screenshot(path=picture)


def main() -> None:
    picture = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else PICTURE
    with contextlib.ExitStack() as stack, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ |= {"MQTT_AGENT_BROKER": f"mqtt://127.0.0.1:{port}", "XDG_STATE_HOME": str(folder / "state")}
        for name, text in programs().items():
            (folder / name).write_text(text)
        command = [str(Path(sys.executable).with_name("mqtt-agent"))]
        broker = [*command, "broker", "--ui", "--port", port]
        [address] = re.findall(r"http://\S+", stack.enter_context(running(broker, folder, "token=")))
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.set_default_timeout(SECONDS * 1000)
        page.goto(address)
        stack.enter_context(running([sys.executable, "weather_server.py"], folder, "serves"))
        stack.enter_context(running([sys.executable, "traveller.py"], folder, "takes tasks"))
        draw(page, picture, command, folder)
        browser.close()
    with Image.open(picture) as drawn:  # a few colours are enough, and make the file small
        few = drawn.convert("RGB").quantize(64)
    few.save(picture, optimize=True)


if __name__ == "__main__":
    main()
