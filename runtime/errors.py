"""What can go wrong in the container runtime: a small closed set, and containerd's statuses mapped to it."""

from __future__ import annotations

import grpc


class RuntimeFailure(Exception):
    """Base of all; `str()` is a sentence for a person."""


class NotFound(RuntimeFailure):
    """The container, process, image or blob that was named does not exist."""


class AlreadyExists(RuntimeFailure):
    """Something of that name is there already."""


class Unavailable(RuntimeFailure):
    """containerd does not answer; the request may be repeated once it does."""


class TimedOut(RuntimeFailure):
    """containerd, or a process in a container, did not finish within its limit."""


class NotPossible(RuntimeFailure):
    """The container is not in a state that allows this."""


class InvalidRequest(RuntimeFailure):
    """The request contradicts itself or the image: an unknown user, capability or signal, ..."""


class CannotStart(RuntimeFailure):
    """runc refused to make or start the process: a missing program, a bad mount, ..."""


class InvalidImage(RuntimeFailure):
    """An image or archive that is truncated, does not match its digests, or is not an image at all."""


class WrongArchitecture(InvalidImage):
    """An image for other processors or another operating system than this host's."""


class NoSpace(RuntimeFailure):
    """The disk below containerd or the daemon is full."""


class AccessDenied(RuntimeFailure):
    """A registry does not let its user, or anybody, read what was asked for."""


class MissingFeature(RuntimeFailure):
    """The host lacks a program or kernel feature that the request needs."""


_BY_STATUS: dict[grpc.StatusCode, type[RuntimeFailure]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
    grpc.StatusCode.FAILED_PRECONDITION: NotPossible,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.RESOURCE_EXHAUSTED: NoSpace,
}
_NO_SPACE = ("no space left on device", "disk quota exceeded")
_RUNC_PREFIXES = (
    "failed to create shim task: ",
    "failed to create task: ",
    "OCI runtime create failed: ",
    "OCI runtime start failed: ",
    "OCI runtime exec failed: ",
    "exec failed: ",
    "runc create failed: ",
    "unable to start container process: ",
)


def from_status(method: str, status: grpc.StatusCode | None, details: str) -> RuntimeFailure:
    """The error for a failed containerd call; `method` as in "tasks.v1.Tasks/Start"."""
    lower = details.lower()
    if any(words in lower for words in _NO_SPACE):
        return NoSpace(f"the disk is full: {details}")
    if "OCI runtime" in details or "failed to create shim" in details:
        return CannotStart(readable_runc_message(details))
    kind = _BY_STATUS.get(status, RuntimeFailure) if status is not None else RuntimeFailure
    return kind(f"containerd refused {method.rpartition('/')[2]}: {details or status}")


def readable_runc_message(details: str) -> str:
    """runc's own words without the names of the layers that they passed through."""
    text = details
    while True:
        shorter = text
        for prefix in _RUNC_PREFIXES:
            shorter = shorter.removeprefix(prefix)
        if shorter == text:
            return text.removesuffix(": unknown")
        text = shorter
