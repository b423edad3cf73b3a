"""The torture itself, for a few seconds; and that its judgement and its disks are what they seem."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raft.simulation.linearizable import FOREVER, Operation
from tests.torture import disks
from tests.torture.__main__ import judged

ROOT = Path(__file__).parents[2]
RUN_SECONDS_MAX = 240.0
SEED = "1144"  # full disks, then a power cut, of two hosts each


def test_a_lost_write_is_noticed_and_an_open_one_is_not_held_against_anybody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lost = [Operation(0.0, 1.0, "write", "a"), Operation(2.0, 3.0, "read", None)]
    late = [
        Operation(0.0, FOREVER, "write", "a", succeeded=None),
        Operation(2.0, 3.0, "read", None),
        Operation(4.0, 5.0, "read", "a"),
    ]
    assert judged({"late": late})
    assert not judged({"late": late, "lost": lost})
    assert "lost: NOT LINEARIZABLE" in capsys.readouterr().out


def test_a_filled_folder_takes_nothing_and_is_free_again(tmp_path: Path) -> None:
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    image.write_bytes(b"")
    with image.open("r+b") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True, timeout=60)
    try:
        disks.fill(disk)
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(bytes(4096))
        disks.free(disk)
        (disk / "more").write_bytes(bytes(4096))
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=60)


def test_three_hosts_under_faults_lose_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", "--minutes", "0.15", "--hosts", "3", "--seed", SEED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
