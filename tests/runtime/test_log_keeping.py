"""What tasks wrote before they ended is there, though no daemon read it: somebody held their FIFOs open."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime.conftest import drive, request_for, until


class Keeper:
    """As systemd: it outlives the daemon."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}

    def keep(self, name: str, file: int) -> None:
        self.files.setdefault(name, os.dup(file))

    def drop(self, name: str) -> None:
        if name in self.files:
            os.close(self.files.pop(name))

    def kept(self) -> Collection[str]:
        return self.files.keys()


def test_the_last_words_of_a_task_that_ends_without_a_daemon(settings: RuntimeSettings, image: LoadedImage) -> None:
    keeper = Keeper()
    request = request_for(
        image, "sh", "-c", "echo one; until [ -f /tmp/go ]; do sleep 0.02; done; seq 1 9; echo bad >&2"
    )
    end: list[Path] = []

    async def first(runtime: Runtime) -> None:
        await runtime.create(request)
        pid = await runtime.start(request.id)
        end.extend([Path(f"/proc/{pid}"), Path(f"/proc/{pid}/root/tmp/go")])
        async for _ in runtime.read_log(request.id, follow=True):
            break

    async def second(runtime: Runtime) -> list[bytes]:
        await until(lambda: not end[0].exists())
        await runtime.list()
        await runtime.wait(request.id)
        lines = [line.text async for line in runtime.read_log(request.id, follow=True)]
        assert not keeper.files
        keeper.keep("forgotten.out", 0)
        await runtime.list()
        assert not keeper.files
        await runtime.delete(request.id)
        return lines

    drive(settings, first, keeper)
    assert sorted(keeper.files) == [f"{request.id}.err", f"{request.id}.out"]
    end[1].touch()
    assert sorted(drive(settings, second, keeper)) == sorted(
        [b"one", b"bad", *(b"%d" % number for number in range(1, 10))]
    )
