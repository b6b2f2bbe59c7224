"""What a program shows when an error that nobody catches ends it: at a terminal, and elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import Broker, die_with_parent

pty = pytest.importorskip("pty", reason="pseudo-terminals are a part of POSIX")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

Show = Callable[..., list[str]]

AWAITS = """\
import asyncio
from mqtt_agent import ToolClient

async def main():
    await ToolClient("ada", broker=URL).start()

asyncio.run(main())
"""
BLOCKS = """\
from mqtt_agent.sync import ToolClient

def main():
    ToolClient("ada", broker=URL).start()

main()
"""


@pytest.fixture
def at_terminal(tmp_path: Path, url_of_nobody: str) -> Show:
    """Runs a program whose standard error is a terminal, and returns the lines that the terminal gets."""

    def show(code: str, *, ends: int = 1, **env: str) -> list[str]:
        program = tmp_path / "program.py"
        program.write_text(code.replace("URL", repr(url_of_nobody)), encoding="utf-8")
        terminal, inner = pty.openpty()
        plain = {"NO_COLOR": "1", **{name: os.environ[name] for name in os.environ if name != "MQTT_AGENT_TRACEBACK"}}
        command = [sys.executable, str(program)]
        process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env={**plain, **env})
        os.close(inner)
        shown = b""
        while True:
            try:
                data = os.read(terminal, 10_000)
            except OSError:  # Linux reports the end of the program so
                break
            if not data:
                break
            shown += data
        os.close(terminal)
        assert process.wait(30) == (0 if "Thread(" in code else ends)
        return shown.decode().replace(str(program), "program.py").splitlines()

    return show


def unreachable(url: str) -> str:
    return f"BrokerUnreachable: no MQTT broker answers at {url}"


@pytest.mark.parametrize("code", [AWAITS, BLOCKS], ids=["asyncio", "sync"])
def test_at_a_terminal_it_is_the_users_lines_the_message_and_the_next_step(
    code: str, at_terminal: Show, url_of_nobody: str
) -> None:
    lines = at_terminal(code)
    last = code.splitlines()[-1]
    call = code.splitlines()[-3]
    assert lines[:4] == [
        f'  File "program.py", line {len(code.splitlines())}, in <module>',
        f"    {last}",
        f'  File "program.py", line {len(code.splitlines()) - 2}, in main',
        call.replace("URL", repr(url_of_nobody)),
    ]
    assert lines[4].startswith(unreachable(url_of_nobody))
    assert lines[5].startswith("Next: start a broker at this URL")
    assert lines[6:] == ["(Set MQTT_AGENT_TRACEBACK=1 to see the whole traceback.)"]


def test_the_message_is_in_colour_where_the_terminal_shows_colours(at_terminal: Show) -> None:
    assert any(line.startswith("\x1b[31mBrokerUnreachable\x1b[0m: ") for line in at_terminal(BLOCKS, NO_COLOR=""))


@pytest.mark.parametrize("code", [AWAITS, BLOCKS], ids=["asyncio", "sync"])
def test_the_environment_variable_brings_the_whole_traceback(code: str, at_terminal: Show) -> None:
    lines = at_terminal(code, MQTT_AGENT_TRACEBACK="1")
    assert lines[0] == "Traceback (most recent call last):"
    assert any("mqtt_agent/transport" in line for line in lines)
    assert not any(line.startswith("Next:") for line in lines)


def test_a_pipe_gets_the_ordinary_traceback(tmp_path: Path, url_of_nobody: str) -> None:
    code = "import sys\n" + BLOCKS.replace("URL", repr(url_of_nobody))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "mqtt_agent/transport" in done.stderr


def test_the_error_of_a_thread_is_shown_in_the_same_way(at_terminal: Show, url_of_nobody: str) -> None:
    code = BLOCKS.replace(
        "\nmain()", "\nimport threading\nwork = threading.Thread(target=main, name='work')\nwork.start()\nwork.join()"
    )
    lines = at_terminal(code)
    assert lines[:2] == ["Exception in thread work:", '  File "program.py", line 4, in main']
    assert lines[3].startswith(unreachable(url_of_nobody))
    assert lines[4].startswith("Next: ")
    assert len(lines) == 6


GROUP = """\
import asyncio
from mqtt_agent import ToolClient

async def connect(name):
    await ToolClient(name, broker=URL).start()

async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(connect("ada"))
        OTHER

asyncio.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups are new in Python 3.11")
def test_a_group_of_our_errors_shows_each_of_them(at_terminal: Show, url_of_nobody: str) -> None:
    lines = at_terminal(GROUP.replace("OTHER", ""))
    assert lines[0] == '  File "program.py", line 5, in connect'
    assert lines[2].startswith(unreachable(url_of_nobody))
    assert len(lines) == 5


@pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups are new in Python 3.11")
def test_a_group_with_another_exception_is_an_ordinary_traceback(at_terminal: Show) -> None:
    code = GROUP.replace("OTHER", "group.create_task(asyncio.to_thread(int, 'x'))")
    lines = at_terminal(code.replace("connect(name):", "connect(name):\n    raise KeyError"))
    assert "Traceback (most recent call last):" in lines[0]


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("from mqtt_agent import ToolClient\n1 / 0", "ZeroDivisionError"),
        (
            "import mqtt_agent\nerror = KeyError()\nerror.exceptions = ()\nmqtt_agent.errors.QueueFull()\nraise error",
            "KeyError",
        ),
        ("from mqtt_agent import ToolClient\ntry:\n    1 / 0\nfinally:\n    ToolClient('a/b')", "ZeroDivisionError"),
        (
            f"{BLOCKS[:-7]}\ntry:\n    main()\nexcept ConnectionError as error:\n    raise KeyError from error",
            "KeyError",
        ),
    ],
    ids=["other", "no group", "while another is handled", "another because of ours"],
)
def test_no_other_exception_is_hidden(code: str, named: str, at_terminal: Show) -> None:
    lines = at_terminal(code)
    assert lines[0] == "Traceback (most recent call last):"
    assert any(line.startswith(named) for line in lines)


def test_an_import_sets_no_hook_and_the_hook_of_the_program_is_kept(at_terminal: Show) -> None:
    code = "import sys, threading, mqtt_agent\n"
    code += "assert sys.excepthook is sys.__excepthook__\n"
    code += "assert threading.excepthook is threading.__excepthook__\n"
    code += "sys.excepthook = lambda *about: print('the hook of the program:', about[0].__name__)\n"
    assert at_terminal(code + BLOCKS) == ["the hook of the program: BrokerUnreachable"]


def test_a_hook_that_is_set_later_gets_ours_as_the_previous_one(at_terminal: Show) -> None:
    code = BLOCKS.replace("\nmain()", "\nimport mqtt_agent, sys\nmqtt_agent.errors.QueueFull()\n")
    code += "before = sys.excepthook\n"
    code += "def report(*about):\n    print('reported')\n    before(*about)\n\nsys.excepthook = report\nmain()\n"
    lines = at_terminal(code)
    assert lines[0] == "reported"
    assert lines[-1] == "(Set MQTT_AGENT_TRACEBACK=1 to see the whole traceback.)"


INTERRUPTED = """\
import os, signal, threading
from mqtt_agent import EmbeddedBroker
from mqtt_agent.sync import ToolClient

with EmbeddedBroker() as broker, ToolClient("ada", broker=broker.url) as client:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    WAIT
"""


@pytest.mark.parametrize(
    ("waits", "shown"),
    [
        ('client.call("forecast", wait_online=True)', []),
        ("threading.Event().wait()", ["Traceback (most recent call last):"]),
    ],
)
def test_ctrl_c_in_a_blocking_call_ends_the_program_without_a_traceback(
    waits: str, shown: list[str], at_terminal: Show
) -> None:
    lines = at_terminal(INTERRUPTED.replace("WAIT", waits), ends=-signal.SIGINT)
    assert [line for line in lines if line.startswith("Traceback")] == shown
    assert lines == [] or shown


INSIDE = """\
import asyncio
from mqtt_agent import Agent, ToolClient

async def main():
    async with Agent("ada", broker=URL, namespace=NAMESPACE, store=None), ToolClient("web", broker=URL):
        print("ready", flush=True)
        await WAIT

asyncio.run(main())
"""
OUTSIDE = INSIDE.replace("        await WAIT", "    print('left', flush=True)\n    await asyncio.sleep(60)")
FAILS = """\
import asyncio
from mqtt_agent import ToolClient

async def main():
    async with ToolClient("web", broker=URL, namespace=NAMESPACE):
        try:
            print("ready", flush=True)
            await asyncio.sleep(60)
        finally:
            raise ValueError("at the end")

asyncio.run(main())
"""


def press_ctrl_c(program: Path, code: str, broker: Broker, namespace: str, after: str, **env: str) -> tuple[str, int]:
    """Run a program in a terminal, press Ctrl-C when it has printed a word, and return what is shown after the word."""
    program.write_text(code.replace("URL", repr(broker.url)).replace("NAMESPACE", repr(namespace)), encoding="utf-8")
    terminal, inner = pty.openpty()

    def take_terminal() -> None:
        die_with_parent()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, str(program)],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env={**os.environ, "NO_COLOR": "1", **env},
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(inner)
    shown = b""
    pressed = False
    while True:
        try:
            data = os.read(terminal, 10_000)
        except OSError:  # Linux reports the end of the program so
            break
        shown += data
        if not pressed and after.encode() in shown:
            pressed = True
            os.write(terminal, b"\x03")
    os.close(terminal)
    return shown.decode().partition(after)[2], process.wait(30)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.run cancels its coroutine from Python 3.11 on")
@pytest.mark.parametrize("wait", ["asyncio.Event().wait()", "asyncio.wait_for(asyncio.sleep(60), 50)"])
def test_ctrl_c_inside_async_with_shows_no_traceback(wait: str, tmp_path: Path, broker: Broker, namespace: str) -> None:
    shown, code = press_ctrl_c(tmp_path / "program.py", INSIDE.replace("WAIT", wait), broker, namespace, "ready")
    assert shown.replace("^C", "").strip() == ""
    assert code == -signal.SIGINT


def test_ctrl_c_elsewhere_and_an_error_of_the_program_at_ctrl_c_show_the_ordinary_traceback(
    tmp_path: Path, broker: Broker, namespace: str
) -> None:
    shown, _ = press_ctrl_c(tmp_path / "program.py", OUTSIDE, broker, namespace, "left")
    assert "KeyboardInterrupt" in shown
    shown, _ = press_ctrl_c(tmp_path / "program.py", FAILS, broker, namespace, "ready")
    assert "ValueError: at the end" in shown
    whole = INSIDE.replace("WAIT", "asyncio.sleep(60)")
    shown, _ = press_ctrl_c(tmp_path / "program.py", whole, broker, namespace, "ready", MQTT_AGENT_TRACEBACK="1")
    assert "Traceback" in shown
