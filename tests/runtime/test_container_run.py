"""What a process in a container sees and may do."""

from __future__ import annotations

from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime.conftest import drive, output_of, request_for


def run(settings: RuntimeSettings, image: LoadedImage, *command: str, **more: object) -> tuple[int, str]:
    async def body(runtime: Runtime) -> tuple[int, str]:
        return await output_of(runtime, request_for(image, *command, **more))  # type: ignore[arg-type]

    return drive(settings, body)


def test_exit_code_and_both_streams_arrive(settings: RuntimeSettings, image: LoadedImage) -> None:
    code, text = run(settings, image, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert code == 7
    assert sorted(text.split()) == ["err", "out"]
