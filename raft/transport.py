"""Frames between members over mutual TLS: who sent one is known from the connection's certificate.

Every member dials every other and sends on that connection only; what it hears comes on the connections
that others dialled. So each direction is one ordered stream, and a newer one from the same member replaces
the older. When a connection breaks, all that waited for it is dropped: the leader sends it anew.
"""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import trio

from raft.codec import decode, decode_hello, encode, encode_hello, framed
from raft.link import Frames, Line, TlsSource, closing, dial, secured
from raft.messages import Message
from raft.refusals import Newcomers, Refusals
from raft.settings import Peer, RaftSettings

log = logging.getLogger(__name__)

NOT_REACHED = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, ValueError)


class _Way:
    """The way to one member; `line` while it is up."""

    def __init__(self) -> None:
        self.line: Line | None = None
        self.stuck = trio.Event()  # the kernel takes nothing more: a task has to wait and send the rest
        self.used_at = time.monotonic()
        self.scope = trio.CancelScope()


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
        self._room = trio.lowlevel.ParkingLot()
        self._unsent: set[str] = set()  # members for whom something was queued since the last push
        self._last: tuple[Message, bytes] | None = None  # encoded last
        self._refusals, self._newcomers = Refusals(), Newcomers(settings.newcomers_address_max)
        self._nursery: trio.Nursery | None = None

    # ---- for the turn loop --------------------------------------------------------------------

    def _send(self, member: str, message: Message) -> None:
        """Queues a message; it is dropped where there is no connection, which Raft can bear."""
        way = self._ways.get(member) or self._open_way(member)
        if way is None:
            return
        way.used_at = time.monotonic()
        line = way.line
        if line is None:
            return
        line.queue(self._framed(message))
        if line.waiting_bytes > self._settings.outbox_bytes_max:
            log.warning("%s takes nothing any more: its connection is closed", member)
            self._hang_up(member, way)
            return
        self._unsent.add(member)

    def send_all(self, messages: Iterable[tuple[str, Message]]) -> None:
        """Sends messages, joined for each member; handed to the kernel on return as far as it takes them."""
        for member, message in messages:
            self._send(member, message)
        for member in self._unsent:
            way = self._ways.get(member)
            if way is None or way.line is None:
                continue
            try:
                if not way.line.push():
                    way.stuck.set()
            except OSError as error:
                log.debug("the connection to %s broke: %s", member, error)
                self._hang_up(member, way)
        self._unsent.clear()

    def _framed(self, message: Message) -> bytes:
        # The same entries go to all members, most often in equal messages: encode them once.
        if self._last is None or self._last[0] != message:
            self._last = (message, framed(encode(message)))
        return self._last[1]

    def _hang_up(self, member: str, way: _Way) -> None:
        way.scope.cancel()
        self._set_line(member, way, None)

    def take_inbox(self) -> list[tuple[str, Message]]:
        """All that has arrived, in order for each sender."""
        taken = list(self.inbox)
        self.inbox.clear()
        self._inbox_bytes = 0
        if self._room:
            self._room.unpark_all()
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

    def moved(self, address: str) -> None:
        """This member has another address: what hangs on the old one is dialled anew, and the others learn it so."""
        self._settings = replace(self._settings, advertise_address=address)
        for way in self._ways.values():
            way.scope.cancel()

    def forget(self, member: str) -> None:
        """It was removed from the cluster; its connections end, unless the log gives it a part."""
        self._told.pop(member, None)
        self._greeted.pop(member, None)
        if member not in self._voting:
            for scope in (self._inbound.get(member), way.scope if (way := self._ways.get(member)) else None):
                if scope is not None:
                    scope.cancel()

    def is_up(self, member: str) -> bool:
        way = self._ways.get(member)
        return way is not None and way.line is not None

    # ---- running ------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens and dials until cancelled. OSError where the port is taken."""
        settings = self._settings
        everywhere = settings.listen_address == "::"  # IPv4 too, for which trio has a listener of its own
        listeners = await trio.open_tcp_listeners(settings.port, host=None if everywhere else settings.listen_address)
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
                if peer is None:
                    return  # it was removed
                with trio.CancelScope() as way.scope:
                    try:
                        with closing(await dial(peer.address, peer.port, member, self._tls, self._settings)) as line:
                            pause_ms, reached = self._settings.reconnect_ms_min, True
                            await self._use_way(member, way, line)
                    except NOT_REACHED as error:
                        level = logging.INFO if reached else logging.DEBUG
                        why = str(error) or "no answer in time"
                        log.log(level, "%s at %s:%d: %s", member, peer.address, peer.port, why)
                        reached = False
                    except Exception:
                        log.exception("the connection to %s failed", member)
                self._set_line(member, way, None)
                await trio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, self._settings.reconnect_ms_max)
        finally:
            if self._ways.get(member) is way:
                del self._ways[member]

    def _wanted(self, member: str, way: _Way) -> bool:
        idle = time.monotonic() - way.used_at
        return member in self._voting or idle < self._settings.dial_idle_ms_max / 1000

    async def _use_way(self, member: str, way: _Way, line: Line) -> None:
        hello = encode_hello(self._settings.port, self._settings.advertise_address)
        line.queue(framed(hello))
        await self._drain(line)
        self._set_line(member, way, line)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_closed, line, nursery.cancel_scope)
            with contextlib.suppress(*NOT_REACHED):
                await self._send_rests(member, way, line)
            nursery.cancel_scope.cancel()

    async def _send_rests(self, member: str, way: _Way, line: Line) -> None:
        """Sends what the kernel did not take at once, until the connection breaks or nobody wants it any more."""
        while self._wanted(member, way):
            way.stuck = trio.Event()
            await self._drain(line)
            idle_max = math.inf if member in self._voting else self._settings.dial_idle_ms_max / 1000
            with trio.move_on_after(idle_max):
                await way.stuck.wait()

    async def _drain(self, line: Line) -> None:
        # Giving up in the middle of a frame is fatal for the connection, so this ends it.
        with trio.fail_after(self._settings.connection_silence_ms_max / 1000):
            await line.drain()

    async def _until_closed(self, line: Line, scope: trio.CancelScope) -> None:
        with contextlib.suppress(*NOT_REACHED):
            await line.receive()
        scope.cancel()

    def _set_line(self, member: str, way: _Way, line: Line | None) -> None:
        was_up, way.line = way.line is not None, line
        if was_up != (line is not None):
            self.events.append((member, line is not None))
            self._ring()

    # ---- inbound ------------------------------------------------------------------------------

    async def _inbound_guarded(self, plain: trio.SocketStream) -> None:
        try:
            address = str(plain.socket.getpeername()[0])
        except OSError:
            address = ""
        if self._inbound_count >= self._settings.connections_max or not self._newcomers.enter(address):
            self._refused(address, "too many connections")
            await trio.aclose_forcefully(plain)
            return
        self._inbound_count += 1
        try:
            line = await self._welcomed(plain, address)
            if line is not None:
                with closing(line):
                    await self._inbound_connection(line, address)
        except ValueError as error:
            self._refused(address, str(error))
        except NOT_REACHED as error:
            log.debug("a connection ended: %s", error)
        except Exception:
            log.exception("a connection failed")
        finally:
            self._inbound_count -= 1

    async def _welcomed(self, plain: trio.SocketStream, address: str) -> Line | None:
        """The connection after its handshake; None where that fails."""
        try:
            with trio.fail_after(self._settings.connect_ms_max / 1000):
                return await secured(plain, self._tls.server_context(), self._settings, server_side=True)
        except trio.TooSlowError:
            self._refused(address, f"no TLS handshake within {self._settings.connect_ms_max} ms")
        except ssl.SSLError as error:
            self._refused(address, f"no certificate of this cluster, or no TLS at all ({error.reason or 'cut off'})")
        finally:
            self._newcomers.leave(address)
        return None

    def _refused(self, who: str, why: str) -> None:
        self._refusals.note(who, why, time.monotonic())

    async def _inbound_connection(self, line: Line, address: str) -> None:
        member = self._tls.peer_node_id(line.certificate_der())
        if not self._is_known(member):
            self._refused(f"{member} at {address}", "it has no part in this cluster's consensus, or was removed")
            return
        with trio.CancelScope() as scope:
            older = self._inbound.get(member)
            if older is not None:
                older.cancel()
            self._inbound[member] = scope
            try:
                await self._read(member, line, scope)
            except ValueError as error:
                self._refused(f"{member} at {address}", str(error))
            finally:
                if self._inbound.get(member) is scope:
                    del self._inbound[member]

    def _is_known(self, member: str) -> bool:
        """A new member that knows nobody yet believes any certificate of the cluster."""
        known = self._told.keys() | self._voting.keys()
        return member != self._settings.node_id and (not known or member in known)

    async def _read(self, member: str, line: Line, scope: trio.CancelScope) -> None:
        greeted = False
        frames = Frames(line, self._settings.frame_bytes_max)
        while arrived := await frames.receive():
            for content in arrived:
                if not greeted:
                    self._take_hello(member, content, line)
                    greeted = True
                    continue
                message = decode(content)
                while self._inbox_bytes > self._settings.inbox_bytes_max:
                    await self._room.park()
                if scope.cancel_called:
                    return  # a newer connection took its place: nothing older may follow its messages
                self.inbox.append((member, message))
                self._inbox_bytes += len(content)
            if self.inbox:
                self._ring()

    def _take_hello(self, member: str, content: bytes, line: Line) -> None:
        """Where it is, it knows best; the log tells of a new address only when a majority is connected."""
        port, address = decode_hello(content)
        greeted = self._greeted[member] = Peer(member, address or line.address(), port)
        known = self._address(member)
        if address and known is not None and known.address != address and known.port == port:
            self.set_address(greeted)
