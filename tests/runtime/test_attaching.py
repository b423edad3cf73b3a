"""A container's own process as somebody at a terminal has it, and shares that its kernel keeps."""

from __future__ import annotations

import trio

from proto.objects_pb2 import ContainerSpec, KernelShares, Resources
from runtime.attaching import AttachSession
from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime.conftest import drive, output_of, request_for


async def all_output(session: AttachSession) -> dict[str, bytes]:
    found = {"stdout": b"", "stderr": b""}
    async for stream, data in session.outputs():
        found[stream] += data
    return found


def test_input_output_and_end_of_the_first_process(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> tuple[dict[str, bytes], int]:
        request = request_for(
            image, "sh", "-c", "printf ready; tr a-z A-Z; echo end >&2; exit 6", spec=ContainerSpec(stdin_open=True)
        )
        await runtime.create(request)
        session = runtime.attach(request.id)
        try:
            await runtime.start(request.id)
            await session.send_stdin(b"one\n")
            await session.send_stdin(b"two" * 10_000 + b"\n")
            await session.close_stdin()
            return await all_output(session), await session.wait()
        finally:
            await session.close()
            await runtime.delete(request.id)

    output, code = drive(settings, body)
    assert code == 6
    assert output == {"stdout": b"readyONE\n" + b"TWO" * 10_000 + b"\n", "stderr": b"end\n"}


def test_a_terminal_is_resized_signalled_and_let_go_of(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> tuple[bytes, int]:
        script = "trap 'stty size; exit 4' WINCH TERM; stty size; while :; do sleep 0.1; done"
        request = request_for(image, "sh", "-c", script, spec=ContainerSpec(tty=True, stdin_open=True))
        await runtime.create(request)
        first = runtime.attach(request.id)
        try:
            await first.resize(111, 22)
            await runtime.start(request.id)
            seen = b""
            async for _, data in first.outputs():
                seen += data
                if b"22 111" in seen:
                    break
            await first.close()  # it goes on without
            second = runtime.attach(request.id)
            await trio.sleep(0.2)
            assert second.exit_code is None
            await second.signal("TERM")
            output = (await all_output(second))["stdout"]
            code = await second.wait()
            await second.close()
            return output, code
        finally:
            await runtime.delete(request.id)

    output, code = drive(settings, body)
    assert b"22 111" in output
    assert code == 4


def test_shares_are_those_of_the_control_group(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> tuple[int, str]:
        request = request_for(
            image,
            "sh",
            "-c",
            "grep Cpus_allowed_list /proc/self/status",
            spec=ContainerSpec(shares=KernelShares(cpus="0", cpu_shares=512, cpu_period_us=20_000)),
            resources=Resources(cpu_limit_millis=500),
        )
        return await output_of(runtime, request)

    code, text = drive(settings, body)
    assert (code, text.split()) == (0, ["Cpus_allowed_list:", "0"])
