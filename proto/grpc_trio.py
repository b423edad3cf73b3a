"""gRPC from trio: asyncio hosts grpc.aio, trio runs as its guest in the same thread.

`run` starts both; `call` awaits something of asyncio's from a trio task; `Portal` runs a trio function
for an asyncio task, as the handlers of a gRPC server need it. Both directions pass cancellation on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


def run(main: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Runs `main` under trio, as the guest of a new asyncio loop, and returns what it returns.

    Ctrl-C reaches the trio side as KeyboardInterrupt in its main task.
    """

    async def host() -> T:
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[outcome.Outcome[T]] = loop.create_future()
        trio.lowlevel.start_guest_run(
            functools.partial(main, *arguments),
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=finished.set_result,
            host_uses_signal_set_wakeup_fd=True,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        result = await finished
        return result.unwrap()

    return asyncio.run(host())


async def call(awaitable: Awaitable[T]) -> T:
    """Awaits `awaitable` (a grpc.aio call, an asyncio future or coroutine) from a trio task.

    When the trio side is cancelled the asyncio side is cancelled too, and its end is waited for. Raises
    ConnectionAbortedError where the call was given up, or had ended before it was written to.
    """
    future = asyncio.ensure_future(awaitable)
    task = trio.lowlevel.current_task()
    token = trio.lowlevel.current_trio_token()
    raise_cancel: Callable[[], Any] | None = None

    def resume() -> None:
        trio.lowlevel.reschedule(task)

    def done(_: asyncio.Future[T]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(resume)

    def abort(cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        nonlocal raise_cancel
        raise_cancel = cancel
        future.cancel()
        return trio.lowlevel.Abort.FAILED

    future.add_done_callback(done)
    await trio.lowlevel.wait_task_rescheduled(abort)
    if raise_cancel is not None and future.cancelled():
        raise_cancel()
    if future.cancelled():
        raise ConnectionAbortedError("the gRPC side gave this call up")
    try:
        return future.result()
    except asyncio.InvalidStateError as error:  # of a write to a stream that has ended since it was made
        raise ConnectionAbortedError(f"this call is over: {error}") from error


class Portal:
    """Runs trio functions in `nursery` on behalf of asyncio tasks of the same thread."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()

    async def enter(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """From asyncio: runs `function(*arguments)` under trio; its result or error is the caller's.

        Cancelling the asyncio task cancels the trio one. Raises asyncio.CancelledError where trio was
        cancelled from elsewhere (the daemon shuts down).
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        scope = trio.CancelScope()

        async def body() -> None:
            try:
                with scope:
                    value = await function(*arguments)
                    if not result.done():
                        result.set_result(value)
            except Exception as error:
                # Errors belong to the caller, never to the nursery that serves everybody. Around the scope, not in it:
                # of an error that came together with a cancellation the scope leaves the error.
                if not result.done():
                    result.set_exception(error)

        async def guarded() -> None:
            try:
                await body()
            finally:
                if not result.done():
                    result.cancel()

        def start() -> None:
            try:
                self._nursery.start_soon(guarded)
            except RuntimeError:  # the nursery is closed: the daemon is going down
                result.cancel()

        self._token.run_sync_soon(start)
        try:
            return await result
        except asyncio.CancelledError:
            self._token.run_sync_soon(scope.cancel)
            raise


def patient(stream: Any) -> Any:
    """A call of grpc.aio that sends a stream, made to end with the server's own status.

    Where a write meets the end of the call before its status has come, grpc.aio (1.85, `_call.py`) makes up one:
    "Internal error from Core". The server's is on its way, and the writer waits for it instead.
    """
    stream._cython_call = _AsTheServerSays(stream._cython_call)
    return stream


class _AsTheServerSays:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_internal_error(self, _details: str) -> None:
        """Leaves the status to come."""
