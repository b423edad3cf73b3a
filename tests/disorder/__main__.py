"""`./run disorder [--changes N] [--minutes N] [--hosts N] [--seed S] [--only FAULT,...] [--json FILE]`: random changes
of workloads beside random failures of hosts, and whether the end is what was asked for.

Exit status 0: every service has its tasks, no volume ever had two holders, nothing is left of what has ended, every
address has one holder, and stores, balancers and names of all hosts are alike. 1: what is wrong, by name. 2: it could
not be carried out.
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
from tests.churn.operator import Stuck
from tests.churn.workload import ROOT
from tests.disorder.run import FAULTS, disorder
from tests.system.cluster import Cluster

PORT = 18080
WRONG_SHOWN_MAX = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run disorder", description=__doc__)
    parser.add_argument("--changes", type=int, default=1000, help="that the cluster says yes to; default 1000")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after these no more changes are made")
    parser.add_argument("--hosts", type=int, default=3, help="of the lab; default 3, at most 5")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="chooses changes and failures")
    parser.add_argument("--only", metavar="FAULT,...", default="", help=f"of {', '.join(FAULTS)}; default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="what was done, and what is wrong")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="where the logs of the hosts' fairwayd are kept")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name] or list(FAULTS)
    if unknown := set(only) - set(FAULTS):
        parser.error(f"there is no fault {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    if not 1 <= arguments.hosts <= 5:
        parser.error("all hosts must vote: 1 to 5 of them")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    print(f"seed {arguments.seed}", flush=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="fairway-disorder-") as folder,
            Lab.make(f"disorder-{secrets.token_hex(3)}", arguments.hosts, build=ROOT) as lab,
        ):
            Cluster(lab, Path(folder)).load_image("static-web")
            say(f"lab {lab.name}: {arguments.hosts} hosts")
            try:
                result = disorder(
                    lab,
                    arguments.changes,
                    "d",
                    PORT,
                    arguments.seed,
                    say,
                    only=only,
                    seconds_max=arguments.minutes * 60,
                )
            finally:
                if arguments.logs:
                    for host in lab.hosts():
                        shutil.copy(lab.paths.log(host, "fairwayd"), arguments.logs / f"{host}.log")
    except (LabError, Stuck) as error:
        print(f"disorder: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        result.save(arguments.json)
    print(f"changes: {result.changes}; {result.done}; not possible as things were: {result.refused}")
    print(f"failures: {result.faults}; {len(result.went_back_by_themselves)} services went back by themselves")
    print(
        f"{result.tasks_started} tasks started in {result.seconds:.0f} s; quiet after {result.quiet_seconds:.0f} s; "
        f"{result.looks_for_holders} looks for holders of volumes, at most {result.holders_at_once} at once"
    )
    for each in result.wrong[:WRONG_SHOWN_MAX]:
        print(f"WRONG {each}")
    if len(result.wrong) > WRONG_SHOWN_MAX:
        print(f"... and {len(result.wrong) - WRONG_SHOWN_MAX} more")
    print("as asked for" if not result.wrong else f"{len(result.wrong)} things are wrong")
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
