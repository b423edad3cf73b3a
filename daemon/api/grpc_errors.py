"""Refusals as gRPC statuses, and gRPC statuses of other hosts as refusals."""

from __future__ import annotations

import grpc

from daemon.errors import Kind, Refused

STATUS = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    Kind.NOT_POSSIBLE: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
KIND = {status: kind for kind, status in STATUS.items()}


def refusal(error: grpc.aio.AioRpcError, asked: str) -> Refused:
    """What another host's answer means for whoever asked here; `asked` names the request in words."""
    kind = KIND.get(error.code(), Kind.UNAVAILABLE)
    details = error.details() or error.code().name.lower().replace("_", " ")
    return Refused(details if error.code() in KIND else f"{asked}: {details}", kind)
