"""The agents over gRPC. The tenant of a request names the agent, as the card says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

try:
    import grpc
    import grpc.aio
except ImportError as _error:  # pragma: no cover
    raise ImportError("A2A over gRPC needs another package: pip install 'a2a-mqtt-agent[grpc]'") from _error
import a2a.types.a2a_pb2_grpc as a2a_grpc
from a2a.auth.user import User
from a2a.server.request_handlers.grpc_handler import DefaultGrpcServerCallContextBuilder, GrpcHandler
from a2a.server.request_handlers.request_handler import RequestHandler
from google.rpc import error_details_pb2, status_pb2
from mqtt_agent.adapting.bearers import Identity, identity_of

__all__ = ["serving_grpc"]

_MAX_MESSAGE = 16 * 1024 * 1024


class _Caller(User):
    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def user_name(self) -> str:
        return self._agent_id


def _identity_of(identities: Mapping[bytes, Identity], metadata: Any) -> Identity | None:
    given = next((str(value) for key, value in metadata or () if key.lower() == "authorization"), "")
    return identity_of(identities, given)


class _Contexts(DefaultGrpcServerCallContextBuilder):
    def __init__(self, identities: Mapping[bytes, Identity]) -> None:
        self._identities = identities

    def build_user(self, context: Any) -> User:
        identity = _identity_of(self._identities, context.invocation_metadata())
        return super().build_user(context) if identity is None else _Caller(identity.agent_id)


class _Guard(grpc.aio.ServerInterceptor):
    """Passes on only requests of known callers, in a version of A2A that the gateway speaks."""

    def __init__(self, identities: Mapping[bytes, Identity]) -> None:
        self._identities = identities

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Refuse a request, or pass it on."""
        handler, metadata = await continuation(handler_call_details), handler_call_details.invocation_metadata
        version = next((str(value) for key, value in metadata or () if key.lower() == "a2a-version"), "1.0")
        if handler is None:
            return handler
        trailing: tuple[tuple[str, bytes], ...] = ()
        if _identity_of(self._identities, metadata) is None:
            code, why = grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed"
        elif version.partition(".")[0] != "1":
            code, why = grpc.StatusCode.UNIMPLEMENTED, f"A2A version {version:.20} is not supported"
            trailing = (("grpc-status-details-bin", _details(code, why)),)
        else:
            return handler

        async def refuse(request: Any, context: Any) -> Any:
            await context.abort(code, why, trailing)

        async def refuse_stream(request: Any, context: Any) -> AsyncGenerator[Any]:
            await context.abort(code, why, trailing)
            yield

        coding = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(refuse_stream, **coding)
        return grpc.unary_unary_rpc_method_handler(refuse, **coding)


def _details(code: Any, why: str) -> bytes:
    info = error_details_pb2.ErrorInfo(reason="VERSION_NOT_SUPPORTED", domain="a2a-protocol.org")
    status = status_pb2.Status(code=code.value[0], message=why)
    status.details.add().Pack(info)
    return status.SerializeToString()


@contextlib.asynccontextmanager
async def serving_grpc(
    handler: RequestHandler, address: str, identities: Mapping[bytes, Identity]
) -> AsyncGenerator[None]:
    """Serve A2A clients over gRPC until the end of the block, without TLS.

    Args:
        handler: Answers the requests.
        address: Host and port.
        identities: The callers by the digests of their tokens.

    Raises:
        OSError: The address cannot be used.
    """
    options = [("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(interceptors=[_Guard(identities)], options=options)
    a2a_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler, _Contexts(identities)), server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen on {address}: {error}") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(2)
