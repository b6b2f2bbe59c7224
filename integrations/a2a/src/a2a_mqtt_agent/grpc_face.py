"""The agents over gRPC. The tenant of a request names the agent, as the card says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
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
from mqtt_agent.adapting.bearers import Identity

from a2a_mqtt_agent.authentication import Authentication
from a2a_mqtt_agent.tls import ServerTLS

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


def _headers_of(context: Any) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    return {key.lower(): value for key, value in metadata if isinstance(value, str)}


def _identity_of(authentication: Authentication, context: Any) -> Identity | None:
    names = context.auth_context().get("x509_common_name", ())
    certificate = names[0].decode(errors="replace") if len(names) == 1 else None
    return authentication.identity_of(_headers_of(context), certificate)


class _Contexts(DefaultGrpcServerCallContextBuilder):
    def __init__(self, authentication: Authentication) -> None:
        self._authentication = authentication

    def build_user(self, context: Any) -> User:
        identity = _identity_of(self._authentication, context)
        return super().build_user(context) if identity is None else _Caller(identity.agent_id)


class _Guard(grpc.aio.ServerInterceptor):
    """Passes on only requests of known callers, in a version of A2A that the gateway speaks."""

    def __init__(self, authentication: Authentication) -> None:
        self._authentication = authentication

    async def _check(self, context: Any) -> None:
        """End a request that is not allowed."""
        headers = _headers_of(context)
        await self._authentication.prepare(headers)
        version = headers.get("a2a-version", "1.0")
        if _identity_of(self._authentication, context) is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, self._authentication.wanted)
        if version.partition(".")[0] != "1":
            code, why = grpc.StatusCode.UNIMPLEMENTED, f"A2A version {version:.20} is not supported"
            await context.abort(code, why, (("grpc-status-details-bin", _details(code, why)),))

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Check each request before its handler."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler

        async def checked(request: Any, context: Any) -> Any:
            await self._check(context)
            return await handler.unary_unary(request, context)

        async def checked_stream(request: Any, context: Any) -> AsyncGenerator[Any]:
            await self._check(context)
            async with contextlib.aclosing(handler.unary_stream(request, context)) as stream:
                async for each in stream:
                    yield each

        coding = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(checked_stream, **coding)
        return grpc.unary_unary_rpc_method_handler(checked, **coding)


def _details(code: Any, why: str) -> bytes:
    info = error_details_pb2.ErrorInfo(reason="VERSION_NOT_SUPPORTED", domain="a2a-protocol.org")
    status = status_pb2.Status(code=code.value[0], message=why)
    status.details.add().Pack(info)
    return status.SerializeToString()


@contextlib.asynccontextmanager
async def serving_grpc(
    handler: RequestHandler, address: str, authentication: Authentication, tls: ServerTLS | None = None
) -> AsyncGenerator[None]:
    """Serve A2A clients over gRPC until the end of the block.

    Args:
        handler: Answers the requests.
        address: Host and port.
        authentication: Finds who calls.
        tls: The TLS of the server; None for no TLS.

    Raises:
        OSError: The address cannot be used.
    """
    options = [("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(interceptors=[_Guard(authentication)], options=options)
    a2a_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler, _Contexts(authentication)), server)
    try:
        if tls is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, tls.for_grpc())
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen on {address}: {error}") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(2)
