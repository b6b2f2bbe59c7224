"""Several hosts on one machine: network namespaces on a bridge, or proxies. Tests can cut the network of each host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from brokers import Mosquitto, find_program
from proxy import Proxy


class Hosts(Protocol):
    """The operations that a test has on its hosts."""

    def url(self, host: str) -> str:
        """The broker's URL, as seen from a host."""
        ...

    def prefix(self, host: str) -> list[str]:
        """The prefix of a command line that runs on this host."""
        ...

    async def cut(self, host: str) -> None: ...

    async def mend(self, host: str) -> None: ...


def _ip(*words: str) -> None:
    subprocess.run([find_program("ip") or "ip", *words], check=True, capture_output=True, timeout=10)


class Namespaces:
    """A network namespace for each host; the broker is on the bridge between them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._id = uuid.uuid4().hex[:6]
        self._names = list(names)
        self._net = f"10.{random.randint(64, 250)}.{random.randint(1, 250)}"
        self._made: list[tuple[str, ...]] = []
        self.address = f"{self._net}.1"
        self.port = 0

    def make(self) -> None:
        bridge = f"mqb{self._id}"
        self._make("link", "add", bridge, "type", "bridge", undo=("link", "del", bridge))
        _ip("addr", "add", f"{self.address}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(self._names):
            namespace, outside = self._namespace(name), self._outside(name)
            self._make("netns", "add", namespace, undo=("netns", "del", namespace))
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", outside, "master", bridge, "up")
            inside = ("-n", namespace)
            _ip(*inside, "addr", "add", f"{self._net}.{number + 2}/24", "dev", "eth0")
            _ip(*inside, "link", "set", "eth0", "up")
            _ip(*inside, "link", "set", "lo", "up")

    def _make(self, *words: str, undo: tuple[str, ...]) -> None:
        _ip(*words)
        self._made.append(undo)

    def remove(self) -> None:
        for undo in reversed(self._made):
            with contextlib.suppress(subprocess.SubprocessError):
                _ip(*undo)

    def _namespace(self, name: str) -> str:
        return f"mq{self._id}-{name}"

    def _outside(self, name: str) -> str:
        return f"mqv{self._id}{self._names.index(name)}"

    def url(self, host: str) -> str:
        return f"mqtt://{self.address}:{self.port}"

    def prefix(self, host: str) -> list[str]:
        return [find_program("ip") or "ip", "netns", "exec", self._namespace(host)]

    async def cut(self, host: str) -> None:
        _ip("link", "set", self._outside(host), "down")

    async def mend(self, host: str) -> None:
        _ip("link", "set", self._outside(host), "up")


class Proxies:
    """A proxy to the broker for each host, for systems on which network namespaces cannot be made."""

    def __init__(self, url: str, names: Sequence[str]) -> None:
        self._proxies = {name: Proxy(url) for name in names}

    async def make(self) -> None:
        for proxy in self._proxies.values():
            await proxy.mend()

    async def remove(self) -> None:
        for proxy in self._proxies.values():
            await proxy.cut()

    def url(self, host: str) -> str:
        return self._proxies[host].url

    def prefix(self, host: str) -> list[str]:
        return []

    async def cut(self, host: str) -> None:
        await self._proxies[host].cut()

    async def mend(self, host: str) -> None:
        await self._proxies[host].mend()


@contextlib.asynccontextmanager
async def hosts(names: Sequence[str]) -> AsyncIterator[Hosts]:
    """Make hosts with these names, and a Mosquitto that all hosts can reach."""
    namespaces = Namespaces(names)
    try:
        try:
            if os.geteuid() != 0:
                raise PermissionError("only root makes network namespaces")
            await asyncio.to_thread(namespaces.make)
        except (OSError, subprocess.SubprocessError):
            with Mosquitto() as broker:
                proxies = Proxies(broker.url, names)
                await proxies.make()
                try:
                    yield proxies
                finally:
                    await proxies.remove()
            return
        broker = Mosquitto()
        broker.lines.append(f"listener {broker.port} {namespaces.address}")
        namespaces.port = broker.port
        with broker:
            yield namespaces
    finally:
        await asyncio.to_thread(namespaces.remove)
