"""One GET over a connection that somebody else has made: bounded in bytes, by h11; RFC 9110 and 9112."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import h11
import trio

from runtime.errors import RuntimeFailure

HEAD_BYTES_MAX = 32 << 10
_READ_BYTES = 16 << 10


class HttpFailure(RuntimeFailure):
    """What answered does not speak HTTP, or says too much."""


async def get(
    stream: trio.abc.Stream, host: str, path: str, headers: Sequence[tuple[str, str]] = (), body_bytes_max: int = 0
) -> tuple[int, bytes]:
    """(status, body); with `body_bytes_max` 0 the body is not waited for. The connection is of no use afterwards.

    `headers` go before the usual ones of the same name. Raises HttpFailure, and trio.BrokenResourceError where the
    connection breaks. Redirections are answers like others.
    """
    said = {name.lower() for name, _ in headers}
    usual = [("Host", host), ("User-Agent", "fairway"), ("Accept", "*/*"), ("Connection", "close")]
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    try:
        request = h11.Request(
            method="GET", target=path, headers=[*headers, *(each for each in usual if each[0].lower() not in said)]
        )
        await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
        return await _answer(stream, connection, body_bytes_max)
    except h11.RemoteProtocolError as error:
        raise HttpFailure(f"the answer is not HTTP: {error}") from error
    except h11.LocalProtocolError as error:
        raise HttpFailure(f"no such request can be made: {error}") from error


async def _answer(stream: trio.abc.Stream, connection: h11.Connection, body_bytes_max: int) -> tuple[int, bytes]:
    status, body = 0, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(_READ_BYTES))
            if not data and not status:
                raise HttpFailure("the connection was closed without an answer")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            if not body_bytes_max:
                return status, b""
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > body_bytes_max:
                raise HttpFailure(f"the answer is longer than {body_bytes_max} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return status, body


def secured(stream: trio.abc.Stream, protocols: Sequence[str] = ()) -> trio.SSLStream[trio.abc.Stream]:
    """TLS over a connection. The certificate is not checked: a probe asks whether the task answers, not who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return trio.SSLStream(stream, context, https_compatible=True)
