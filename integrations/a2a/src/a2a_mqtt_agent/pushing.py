"""Push notifications: the addresses are kept in the store of their caller, and are told until they have the end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
import uuid
from collections.abc import Iterable
from typing import Any

import httpx
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError
from a2a.utils.proto_utils import to_stream_response
from a2a.utils.push_url_validator import validate_push_notification_url
from google.protobuf.json_format import MessageToDict, ParseDict
from mqtt_agent.adapting.background import Backoff
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState

from a2a_mqtt_agent.callers import Caller
from a2a_mqtt_agent.following import Followed
from a2a_mqtt_agent.translating import TERMINAL
from a2a_mqtt_agent.views import Update
from a2a_mqtt_agent.waiting import Waiting

__all__ = ["Pusher"]

logger: logging.Logger = logger_of(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0
"""Seconds between two tries to tell an address the end of a task; see :class:`Backoff`."""
_TRIES = 25
"""How often the end of a task is told to an address that does not answer: for about an hour."""
_TIMEOUT = 10.0
_KEPT = 7 * 24 * 3600
"""Seconds that the addresses of ended tasks are kept."""
_MOST = 100
"""How many addresses a task may have."""
_MOST_WAITING, _MOST_BYTES = 100, 16 * 1024 * 1024
"""How many changes of a task, and how many bytes of them, may wait for one address."""
_OPEN = (TaskState.WORKING,)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""A gateway of the network sends these on to the IPv4 address in the last 32 bits (RFC 6052)."""


class Pusher:
    """Tells addresses about the changes of tasks.

    An address is a record of its own in the store of its caller: ``working`` while there is more to tell,
    ``completed`` once the address has the end of the task, ``canceled`` when it was removed.

    An address that is slow or away does not get each change: what waits for it is replaced by the task as it is then.

    Args:
        allow_private: Whether addresses of this machine and of private networks are allowed.
        client: Sends the notifications; None makes a client.
    """

    def __init__(self, *, allow_private: bool = False, client: httpx.AsyncClient | None = None) -> None:
        self._allow_private = allow_private
        self._client = client or httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, trust_env=False)
        self._waiting: dict[TaskKey, Waiting] = {}
        self._latest: dict[tuple[str, str], a2a.Task] = {}
        self._tellers: dict[TaskKey, asyncio.Task[None]] = {}
        self._of_task: dict[tuple[str, str], set[TaskKey]] = {}

    async def start(self, callers: Iterable[Caller]) -> None:
        """Tell the addresses that an earlier process has left, from the present state of their tasks."""
        for caller in callers:
            await caller.agent.store.sweep(_owner(caller), time.time() - _KEPT)
            for record in await _all(caller, states=_OPEN):
                task = await _task_of(caller, record.peer or "")
                if task is not None:
                    self._begin(caller, record, task)

    async def stop(self) -> None:
        """Stop telling. What is not told is told after the next start."""
        tellers = list(self._tellers.values())
        for teller in tellers:
            teller.cancel()
        await asyncio.gather(*tellers, return_exceptions=True)
        await self._client.aclose()

    async def check(self, url: str) -> None:
        """Check that an address may be told.

        Raises:
            InvalidParamsError: The address is not an HTTP URL, or is on this machine or in a private network.
        """
        if not await self._may_tell(url):
            raise InvalidParamsError("Invalid push notification URL: it must be an http or https URL of a public host")

    async def _may_tell(self, url: str) -> bool:
        if not self._allow_private:
            return await validate_push_notification_url(url)
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            return False
        return parsed.scheme in ("http", "https") and bool(parsed.host)

    # Addresses

    async def add(
        self,
        caller: Caller,
        found: Followed | a2a.Task,
        config: a2a.TaskPushNotificationConfig,
        *,
        at_once: bool = False,
    ) -> a2a.TaskPushNotificationConfig:
        """Keep an address of a task. An address with the same id is replaced.

        Args:
            caller: Whose task it is.
            found: The task. If it is over, the address is told its end.
            config: The address.
            at_once: Whether the address is told the present state of the task first.

        Raises:
            InvalidParamsError: The task has 100 addresses already.
        """
        task_id = found.id if isinstance(found, a2a.Task) else found.task.id
        stored = a2a.TaskPushNotificationConfig()
        stored.CopyFrom(config)
        stored.task_id, stored.id = task_id, config.id or uuid.uuid4().hex
        known = await _all(caller, peer=task_id)
        if len(known) >= _MOST:
            raise InvalidParamsError(f"a task may have {_MOST} push notification addresses")
        for record in known:
            if record.task["config"].get("id") == stored.id:
                await self._end(caller, record.key, TaskState.CANCELED)
        key = TaskKey(_owner(caller), "delegated", uuid.uuid4().hex)
        kept = {"config": MessageToDict(stored)}
        record = TaskRecord(key=key, peer=task_id, task=kept, digest="", state=TaskState.WORKING)
        record, _ = await caller.agent.store.add(record)
        # Looked at only now: the task may have ended meanwhile, and then no change would ever come.
        task = found if isinstance(found, a2a.Task) else found.task
        self._begin(caller, record, task if at_once or task.status.state in TERMINAL else None)
        return stored

    async def configs(self, caller: Caller, task_id: str) -> list[a2a.TaskPushNotificationConfig]:
        """The addresses of a task."""
        return [_config(record) for record in await _all(caller, peer=task_id)]

    async def remove(self, caller: Caller, task_id: str, config_id: str) -> None:
        """Remove an address of a task. Nothing happens when it was removed before."""
        for record in await _all(caller, peer=task_id):
            if record.task["config"].get("id") == config_id:
                await self._end(caller, record.key, TaskState.CANCELED)

    async def _end(self, caller: Caller, key: TaskKey, state: TaskState) -> None:
        store = caller.agent.store
        if await store.change(key, _OPEN, state=state) is None and state is TaskState.CANCELED:
            # A terminal state never changes: an address that has the end of its task is marked as removed.
            await store.change(key, (TaskState.COMPLETED,), settled=True)
        teller = self._tellers.get(key)
        if teller is not None and teller is not asyncio.current_task():
            teller.cancel()

    # Telling

    def told(self, caller: Caller, task: a2a.Task, update: Update) -> None:
        """Tell the addresses of a task about an update."""
        about = (caller.owner, task.id)
        for key in self._of_task.get(about, ()):
            self._latest[about] = task
            if not self._waiting[key].put(update):
                self._waiting[key].put(task)

    def _begin(self, caller: Caller, record: TaskRecord, first: a2a.Task | None) -> None:
        key, task = record.key, (caller.owner, record.peer or "")
        waiting = self._waiting[key] = Waiting(_MOST_WAITING, _MOST_BYTES)
        if first is not None:
            waiting.put(first)
        self._of_task.setdefault(task, set()).add(key)
        telling = self._tell(caller, record, waiting)
        teller = self._tellers[key] = asyncio.create_task(telling, name=f"push {record.peer}")
        teller.add_done_callback(lambda _: self._forget(key, task))

    def _forget(self, key: TaskKey, task: tuple[str, str]) -> None:
        self._waiting.pop(key, None)
        self._tellers.pop(key, None)
        keys = self._of_task.get(task, set())
        keys.discard(key)
        if not keys:
            self._of_task.pop(task, None)
            self._latest.pop(task, None)

    async def _tell(self, caller: Caller, record: TaskRecord, waiting: Waiting) -> None:
        config = _config(record)
        while (event := await waiting.get()) is not None:
            last = not isinstance(event, a2a.TaskArtifactUpdateEvent) and event.status.state in TERMINAL
            backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
            for tried in range(_TRIES if last else 1):
                if tried:
                    await backoff.wait()
                if await self._post(config, event):
                    break
            else:
                self._skip(caller, record, waiting)
            if last:
                try:
                    await self._end(caller, record.key, TaskState.COMPLETED)
                except StoreError as error:
                    logger.warning("task %s: the end is told again after a restart: %s", record.peer, error)
                return

    def _skip(self, caller: Caller, record: TaskRecord, waiting: Waiting) -> None:
        """Replace what waits for an address that did not answer: each change would cost the whole timeout."""
        latest = self._latest.get((caller.owner, record.peer or ""))
        if len(waiting) > 1 and latest is not None:
            waiting.drop()
            waiting.put(latest)

    async def _post(self, config: a2a.TaskPushNotificationConfig, event: a2a.Task | Update) -> bool:
        try:
            url, headers, extensions = httpx.URL(config.url), _headers(config), dict[str, str]()
            if not self._allow_private:
                address = await public_address(url.host, url.port or 443)
                if address is None:  # the name may stand for another address now
                    logger.warning("task %s: %s is no public address any more", config.task_id, url.host)
                    return True
                # The request goes to the address that was checked, whatever the name stands for a moment later.
                headers["Host"], extensions["sni_hostname"] = url.netloc.decode("ascii"), url.host
                url = url.copy_with(host=address)
            body = MessageToDict(to_stream_response(event))
            async with self._client.stream("POST", url, json=body, headers=headers, extensions=extensions) as response:
                response.raise_for_status()  # nobody needs the body, which might never end
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # The address may hold a secret, and the text of the error may hold the address.
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else ""
            logger.info("task %s: a client was not told: %s %s", config.task_id, type(error).__name__, status)
            return False
        return True


async def public_address(host: str, port: int) -> str | None:
    """An IP address of a host, if all its addresses are public; None otherwise.

    Args:
        host: A host name, or an IP address.
        port: The port that is asked for.

    Raises:
        OSError: The name has no address.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    unmapped = [getattr(each, "ipv4_mapped", None) or each for each in addresses]
    reached = [each for address in unmapped for each in (address, *_inner(address))]
    public = reached and all(each.is_global and not each.is_multicast for each in reached)
    return str(addresses[0]) if public else None


def _inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that a network may reach through an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    inner = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or int(address) >> 32 == 0:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in inner if each is not None]


def _headers(config: a2a.TaskPushNotificationConfig) -> dict[str, str]:
    headers = {"Content-Type": "application/a2a+json"}
    if config.token:
        headers["X-A2A-Notification-Token"] = config.token
    if config.authentication.scheme and config.authentication.credentials:
        headers["Authorization"] = f"{config.authentication.scheme} {config.authentication.credentials}"
    return headers


def _owner(caller: Caller) -> str:
    """The name under which the addresses of a caller are kept in its store. No agent id has a ``#``."""
    return f"{caller.owner}#push"


def _config(record: TaskRecord) -> a2a.TaskPushNotificationConfig:
    return ParseDict(record.task["config"], a2a.TaskPushNotificationConfig(), ignore_unknown_fields=True)


async def _all(caller: Caller, *, peer: str | None = None, states: Any = None) -> list[TaskRecord]:
    """The addresses that were not removed."""
    states = states or (*_OPEN, TaskState.COMPLETED)
    found, after = list[TaskRecord](), 0
    while records := await caller.agent.store.find(_owner(caller), "delegated", peer=peer, states=states, after=after):
        found += [each for each in records if not each.settled]
        after = records[-1].position
    return found


async def _task_of(caller: Caller, task_id: str) -> a2a.Task | None:
    record = await caller.agent.store.get(caller.key(task_id))
    if record is None:
        return None
    try:
        return await caller.view(task_id, record.peer or "")
    except TaskNotFoundError:
        return None
