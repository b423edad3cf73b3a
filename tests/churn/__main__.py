"""`./run churn [--tasks N] [--minutes N] [--hosts N] [--json FILE]`: days of starts and stops, and what they leave.

Exit status 0: nothing has grown, and the memory of fairwayd by no more than a tenth since the warm-up. 1: a leak, by
name. 2: it could not be carried out.
"""

from __future__ import annotations

import argparse
import math
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from lab.cluster import Lab
from lab.layout import LabError
from tests.churn import judging
from tests.churn.operator import Stuck
from tests.churn.run import churn
from tests.churn.workload import IMAGES, ROOT, Size
from tests.system.cluster import Cluster

PORT = 18080
SIZE = Size(high=16, waves=6)
CHECKS = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run churn", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000, help="that are started and stopped; default 10000")
    parser.add_argument("--hosts", type=int, default=3, help="of the lab; default 3")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="after these it ends with as many as there were"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all inventories, of each host")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="where the logs of the hosts' fairwayd are kept")
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    try:
        with (
            tempfile.TemporaryDirectory(prefix="fairway-churn-") as folder,
            Lab.make(f"churn-{secrets.token_hex(3)}", arguments.hosts, build=ROOT) as lab,
        ):
            for image in IMAGES:
                Cluster(lab, Path(folder)).load_image(image)
            say(f"lab {lab.name}: {arguments.hosts} hosts")
            try:
                result = churn(
                    lab, arguments.tasks, "churn", PORT, SIZE, CHECKS, say, seconds_max=arguments.minutes * 60
                )
            finally:
                if arguments.logs:
                    for host in lab.hosts():
                        shutil.copy(lab.paths.log(host, "fairwayd"), arguments.logs / f"{host}.log")
    except (LabError, Stuck) as error:
        print(f"churn: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        result.save(arguments.json)
    print(judging.table(result.inventories))
    print(f"{result.started} tasks started, {result.stopped} of them stopped, in {result.seconds:.0f} s")
    for leak in result.leaks:
        print(f"LEAK {leak}")
    return 1 if result.leaks else 0


if __name__ == "__main__":
    sys.exit(main())
