"""A member of a pool that has only a store: pool_member.py URL LEASE. It claims tasks, and keeps them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid

from mqtt_agent.agents.store import PostgresStore, TaskKey
from mqtt_agent.agents.store.lease import Beat
from mqtt_agent.agents.store.members import MemberStore
from mqtt_agent.wire import TaskState

AGENT = "a2a/v1/writer"

url, lease = sys.argv[1], float(sys.argv[2])


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def main() -> None:
    def on_beat(beat: Beat) -> None:
        say("beat", beat.lost, beat.lapsed, beat.reopened)

    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    async with PostgresStore(url, lease=lease, patience=1) as store:
        member = MemberStore(store, AGENT, uuid.uuid4().hex[:12], on_beat)
        await member.join()
        say("joined", member.member, member.pool.epoch, member.pool.started)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        commands = asyncio.ensure_future(obey(member, reader))
        await ending.wait()
        commands.cancel()
        say("left", await member.leave())


async def obey(member: MemberStore, reader: asyncio.StreamReader) -> None:
    while line := (await reader.readline()).decode().split():
        if line[0] == "claim":
            record = await member.claim(AGENT)
            say("claimed", *(("nothing",) if record is None else (record.task_id, record.attempt)))
        elif line[0] == "complete":
            key = TaskKey(AGENT, "received", line[1])
            changed = await member.change(
                key, [TaskState.WORKING], expected_attempt=int(line[2]), state=TaskState.COMPLETED, result={}
            )
            say("completed", changed is not None)


asyncio.run(main())
