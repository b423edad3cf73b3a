"""The machine's own limit: `runc run -d` some at a time, with nothing around it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from lab import cgroups
from lab.layout import LabError
from lab.oci_archive import RootFilesystem

COMMAND_SECONDS_MAX = 30.0


def start_seconds(root: RootFilesystem, count: int, command: list[str], at_a_time: int = 4) -> float:
    """Seconds until `count` containers of one read-only root file system run; all are removed again."""
    folder = Path(tempfile.mkdtemp(prefix="fairway-runc-", dir="/var/tmp"))
    try:
        (folder / "rootfs").mkdir()
        root.write_to(folder / "rootfs")
        bundles = [_bundle(folder, number, command) for number in range(count)]
        began = time.monotonic()
        _run_all([_runc(folder, "run", "-d", "-b", str(bundle), bundle.name) for bundle in bundles], at_a_time)
        return time.monotonic() - began
    finally:
        names = [entry.name for entry in folder.glob("state/*") if entry.is_dir()]
        _run_all([_runc(folder, "delete", "--force", name) for name in names], at_a_time)
        cgroups.remove(f"/{folder.name}")
        shutil.rmtree(folder, ignore_errors=True)


def _runc(folder: Path, *words: str) -> list[str]:
    return ["runc", "--root", str(folder / "state"), *words]


def _bundle(folder: Path, number: int, command: list[str]) -> Path:
    bundle = folder / f"bundle-{number}"
    bundle.mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True, timeout=COMMAND_SECONDS_MAX)
    file = bundle / "config.json"
    spec = json.loads(file.read_text())
    spec["process"] |= {"terminal": False, "args": command}
    spec["root"] = {"path": str(folder / "rootfs"), "readonly": True}
    spec["linux"]["cgroupsPath"] = f"/{folder.name}/{bundle.name}"
    file.write_text(json.dumps(spec))
    return bundle


def _run_all(commands: list[list[str]], at_a_time: int) -> None:
    """Runs the commands, never more than `at_a_time` at once; LabError where one fails."""
    waiting, running = list(reversed(commands)), list[subprocess.Popen[bytes]]()
    failed = 0
    while waiting or running:
        while waiting and len(running) < at_a_time:
            # A container inherits its input and output: no pipes, whose end would never come.
            running.append(
                subprocess.Popen(
                    waiting.pop(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        for process in list(running):
            if process.poll() is not None:
                running.remove(process)
                failed += process.returncode != 0
        time.sleep(0.0005)
    if failed:
        raise LabError(f"{failed} of {len(commands)} `runc` commands failed; is runc in order on this machine?")
