"""grpc.aio: one unary method whose request and response are protobuf messages, as generated code makes it.

python -m peers.grpc_calls serve|call http://host:port/
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from peers import load

SERVICE, METHOD = "bench.Tools", "Echo"


async def echo(request: StringValue, context: grpc.aio.ServicerContext[Any, Any]) -> StringValue:
    return StringValue(value=request.value)


async def serve(address: str) -> None:
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        echo, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    server.add_insecure_port(address)
    await server.start()
    load.ready()
    await asyncio.to_thread(load.wait_for_the_end)
    await server.stop(1)


@contextlib.asynccontextmanager
async def client(address: str) -> AsyncIterator[load.AsyncCall]:
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.unary_unary(
            f"/{SERVICE}/{METHOD}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )

        async def call(text: str) -> str:
            return (await method(StringValue(value=text), timeout=load.LONGEST_CALL)).value

        yield call


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role == "serve":
        asyncio.run(serve(urlsplit(url).netloc))
    else:
        load.run_async(client(urlsplit(url).netloc))
