"""The next build of Fairway, as tests need one: this tree with what a next version may bring.

- a version of its own, and one feature level more;
- a new field in a stored object that is only data (`Service.scaled_by`), set by whichever leader is of this build;
- a new table (`notices`), which needs the new level. Its leader tries to write one every second, also while the
  cluster is not ready for it: what holds it back is what the tests are about.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from raft.features import FEATURE_LEVEL

ROOT = Path(__file__).parents[2]
PACKAGES = ("proto", "raft", "net", "storage", "runtime", "daemon")
VERSION = "99.0.0"
LEVEL = FEATURE_LEVEL + 1
GENERATE_SECONDS_MAX = 60

_EDITS = {
    "raft/features.py": [(f"FEATURE_LEVEL = {FEATURE_LEVEL}\n", f"FEATURE_LEVEL = {LEVEL}\n")],
    "proto/objects.proto": [
        ("message Service {\n", "message Notice { Meta meta = 1; string text = 2; }\n\nmessage Service {\n"),
        (
            "  bool removing = 7;                // tasks are",
            "  string scaled_by = 900;\n  bool removing = 7; // tasks are",
        ),
    ],
    "raft/schema.py": [
        (
            '    Kind(objects.Tenant, "tenants"',
            f'    Kind(objects.Notice, "notices", level={LEVEL}),\n    Kind(objects.Tenant, "tenants"',
        )
    ],
    "daemon/deploying/service_changes_plan.py": [
        (
            "    after.spec.replicas = replicas\n",
            '    after.spec.replicas = replicas\n    after.scaled_by = f"build {0}"\n'.replace("{0}", VERSION),
        )
    ],
    "daemon/leader/feature_level.py": [
        ("    while True:\n", "    while True:\n        await _give_notice(writer)\n"),
        (
            "async def raise_feature_level",
            "async def _give_notice(writer: Writer) -> None:\n"
            "    from proto import objects_pb2 as objects\n"
            "    from raft.transaction import TransactionBuilder\n\n"
            '    notice = objects.Notice(meta=objects.Meta(id="n", name="n"), text="everybody understands this")\n'
            "    if writer.store.get(objects.Notice, 'n') is None:\n"
            "        try:\n"
            "            await writer.commit(\n"
            "                lambda _store, _now, _id: (TransactionBuilder().create(notice), None), 'leader'\n"
            "            )\n"
            "        except Refused as refused:\n"
            '            logger.warning("no notice yet: %s", refused.message)\n\n\n'
            "async def raise_feature_level",
        ),
    ],
}


def make(folder: Path) -> Path:
    """Makes the build in `folder`, which must not exist, and returns it. AssertionError where this tree has changed
    so much that an edit does not fit any more."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, edits in _EDITS.items():
        text = (folder / name).read_text()
        for before, after in edits:
            assert text.count(before) == 1, f"{name} has {text.count(before)} times {before!r}, not once: mend _EDITS"
            text = text.replace(before, after)
        (folder / name).write_text(text)
    about = folder / "fairway.egg-info"
    about.mkdir()
    (about / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: fairway\nVersion: {VERSION}\n")
    environment = dict(os.environ, PYTHONPATH=str(folder))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(
        [sys.executable, "-m", "proto.generate"],
        cwd=folder,
        env=environment,
        check=True,
        timeout=GENERATE_SECONDS_MAX,
    )
    return folder
