"""Frames between members over mutual TLS: who sent one is known from the connection's certificate.

Every member dials every other and sends on that connection only; what it hears comes on the connections
that others dialled. So each direction is one ordered stream, and a newer one from the same member replaces
the older. When a connection breaks, all that waited for it is dropped: the leader sends it anew.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection

import trio

from raft.codec import decode, decode_hello, encode, encode_hello, framed
from raft.link import TlsSource, closing, dial, frames, peer_of, quick
from raft.messages import Message
from raft.settings import Peer, RaftSettings

log = logging.getLogger(__name__)

NOT_REACHED = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, ValueError)
SEND_BYTES = 256 * 1024  # frames joined into one write


class _Way:
    """The way to one member: what waits for its connection."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.up = False
        self.news = trio.Event()
        self.used_at = time.monotonic()
        self.scope = trio.CancelScope()

    def clear(self) -> None:
        self.waiting.clear()
        self.waiting_bytes = 0

    def take(self) -> bytes:
        """The frames that are sent next, joined."""
        taken = [self.waiting.popleft()]
        size = len(taken[0])
        while self.waiting and size + len(self.waiting[0]) <= SEND_BYTES:
            taken.append(self.waiting.popleft())
            size += len(taken[-1])
        self.waiting_bytes -= size
        return b"".join(taken)


class Transport:
    """Belongs to the raft thread's trio loop. What arrives gathers in `inbox` and `events`.

    `ring` is called when something is there. `inbox`: (sender, message); `events`: (member, up).
    """

    def __init__(self, settings: RaftSettings, tls: TlsSource, peers: Collection[Peer], ring: Callable[[], None]):
        self.inbox: deque[tuple[str, Message]] = deque()
        self.events: deque[tuple[str, bool]] = deque()
        self._settings, self._tls, self._ring = settings, tls, ring
        self._told = {peer.node_id: peer for peer in peers}  # by the daemon
        self._greeted: dict[str, Peer] = {}  # by the member itself
        self._voting: dict[str, Peer] = {}  # by the log
        self._ways: dict[str, _Way] = {}
        self._inbound: dict[str, trio.CancelScope] = {}
        self._inbound_count = 0
        self._inbox_bytes = 0
        self._room = trio.Event()
        self._nursery: trio.Nursery | None = None

    # ---- for the turn loop --------------------------------------------------------------------

    def send(self, member: str, message: Message) -> None:
        """Queues a message; it is dropped where there is no connection, which Raft can bear."""
        way = self._ways.get(member) or self._open_way(member)
        if way is None:
            return
        way.used_at = time.monotonic()
        if not way.up:
            return
        content = framed(encode(message))
        if way.waiting_bytes + len(content) > self._settings.outbox_bytes_max:
            log.warning("%s takes nothing any more: its connection is closed", member)
            way.clear()
            way.scope.cancel()
            return
        way.waiting.append(content)
        way.waiting_bytes += len(content)
        way.news.set()

    def take_inbox(self) -> list[tuple[str, Message]]:
        """All that has arrived, in order for each sender."""
        taken = list(self.inbox)
        self.inbox.clear()
        self._inbox_bytes = 0
        self._room.set()
        self._room = trio.Event()
        return taken

    def set_members(self, members: Collection[Peer]) -> None:
        """Voters and learners by the log: those are always connected to."""
        self._voting = {peer.node_id: peer for peer in members}
        for member in self._voting:
            if member not in self._ways:
                self._open_way(member)

    def set_address(self, peer: Peer) -> None:
        """The daemon knows where a member is; a connection to elsewhere is given up."""
        if self._told.get(peer.node_id) != peer:
            self._told[peer.node_id] = peer
            if peer.node_id in self._ways:
                self._ways[peer.node_id].scope.cancel()

    def is_up(self, member: str) -> bool:
        way = self._ways.get(member)
        return way is not None and way.up

    # ---- running ------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens and dials until cancelled. OSError where the port is taken."""
        settings = self._settings
        listeners = await trio.open_tcp_listeners(settings.port, host=settings.listen_address)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for member in self._voting:
                    self._open_way(member)
                task_status.started()
                await trio.serve_listeners(self._inbound_guarded, listeners)
            finally:
                self._nursery = None

    def _address(self, member: str) -> Peer | None:
        return self._told.get(member) or self._greeted.get(member) or self._voting.get(member)

    def _open_way(self, member: str) -> _Way | None:
        if self._nursery is None or member == self._settings.node_id or self._address(member) is None:
            return None
        way = self._ways[member] = _Way()
        self._nursery.start_soon(self._keep_way, member, way)
        return way

    async def _keep_way(self, member: str, way: _Way) -> None:
        """Connects again and again, with bounded back-off, as long as the member matters."""
        pause_ms, reached = self._settings.reconnect_ms_min, True
        try:
            while self._wanted(member, way):
                peer = self._address(member)
                assert peer is not None
                with trio.CancelScope() as way.scope:
                    try:
                        stream = await dial(peer.address, peer.port, member, self._tls, self._settings)
                        pause_ms, reached = self._settings.reconnect_ms_min, True
                        async with closing(stream):
                            await self._use_way(member, way, stream)
                    except NOT_REACHED as error:
                        level = logging.INFO if reached else logging.DEBUG
                        log.log(level, "%s at %s:%d: %s", member, peer.address, peer.port, error)
                        reached = False
                    except Exception:
                        log.exception("the connection to %s failed", member)
                self._set_up(member, way, False)
                await trio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, self._settings.reconnect_ms_max)
        finally:
            if self._ways.get(member) is way:
                del self._ways[member]

    def _wanted(self, member: str, way: _Way) -> bool:
        idle = time.monotonic() - way.used_at
        return member in self._voting or idle < self._settings.dial_idle_ms_max / 1000

    async def _use_way(self, member: str, way: _Way, stream: trio.SSLStream[trio.SocketStream]) -> None:
        hello = encode_hello(self._settings.port, self._settings.advertise_address)
        await stream.send_all(framed(hello))
        self._set_up(member, way, True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_closed, stream, nursery.cancel_scope)
            with contextlib.suppress(*NOT_REACHED):
                await self._write(member, way, stream)
            nursery.cancel_scope.cancel()

    async def _write(self, member: str, way: _Way, stream: trio.SSLStream[trio.SocketStream]) -> None:
        """Sends what waits until the connection breaks or nobody wants it any more."""
        while self._wanted(member, way):
            while way.waiting:
                content = way.take()
                # A cut in the middle of a frame would be fatal for the stream, so this ends it.
                with trio.fail_after(self._settings.connection_silence_ms_max / 1000):
                    await stream.send_all(content)
            way.news = trio.Event()
            idle_max = math.inf if member in self._voting else self._settings.dial_idle_ms_max / 1000
            with trio.move_on_after(idle_max):
                await way.news.wait()

    async def _until_closed(self, stream: trio.SSLStream[trio.SocketStream], scope: trio.CancelScope) -> None:
        with contextlib.suppress(*NOT_REACHED):
            await stream.receive_some(1)
        scope.cancel()

    def _set_up(self, member: str, way: _Way, up: bool) -> None:
        way.clear()
        if way.up != up:
            way.up = up
            self.events.append((member, up))
            self._ring()

    # ---- inbound ------------------------------------------------------------------------------

    async def _inbound_guarded(self, plain: trio.SocketStream) -> None:
        if self._inbound_count >= self._settings.connections_max:
            log.warning("a connection is refused: %d are open", self._inbound_count)
            await trio.aclose_forcefully(plain)
            return
        self._inbound_count += 1
        try:
            await self._inbound_connection(plain)
        except NOT_REACHED as error:
            log.debug("a connection ended: %s", error)
        except Exception:
            log.exception("a connection failed")
        finally:
            self._inbound_count -= 1
            await trio.aclose_forcefully(plain)

    async def _inbound_connection(self, plain: trio.SocketStream) -> None:
        quick(plain, self._settings)
        stream = trio.SSLStream(plain, self._tls.server_context(), server_side=True)
        with trio.fail_after(self._settings.connect_ms_max / 1000):
            await stream.do_handshake()
        member = peer_of(stream, self._tls)
        if not self._is_known(member):
            log.warning("%s has no part in this cluster's consensus: its connection is refused", member)
            return
        with trio.CancelScope() as scope:
            older = self._inbound.get(member)
            if older is not None:
                older.cancel()
            self._inbound[member] = scope
            try:
                await self._read(member, stream, scope)
            finally:
                if self._inbound.get(member) is scope:
                    del self._inbound[member]

    def _is_known(self, member: str) -> bool:
        """A new member that was told nobody's address believes any certificate of the cluster."""
        known = self._told.keys() | self._voting.keys()
        return member != self._settings.node_id and (not known - {self._settings.node_id} or member in known)

    async def _read(self, member: str, stream: trio.SSLStream[trio.SocketStream], scope: trio.CancelScope) -> None:
        greeted = False
        async for content in frames(stream, self._settings.frame_bytes_max, lambda: None):
            if not greeted:
                port, address = decode_hello(content)
                where = address or str(stream.transport_stream.socket.getpeername()[0])
                self._greeted[member] = Peer(member, where, port)
                greeted = True
                continue
            message = decode(content)
            while self._inbox_bytes > self._settings.inbox_bytes_max:
                await self._room.wait()
            if scope.cancel_called:
                return  # a newer connection took its place: nothing older may follow its messages
            self.inbox.append((member, message))
            self._inbox_bytes += len(content)
            self._ring()
