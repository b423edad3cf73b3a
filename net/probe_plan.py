"""Which hosts are probed when, and what the answers mean; pure.

Every host probes a rotating sample of the others, so that the cost does not grow with the cluster: in the ring of
ordinals, period P takes the next `count` hosts after those of period P-1. So each host is also probed by `count` others
a period, and after (hosts / count) periods every pair was looked at. Paths that fail are looked at every period.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from net.model import Host

PERIOD_SECONDS = 5.0
PEERS_PER_PERIOD_MAX = 8
SUSPECTS_PER_PERIOD_MAX = 8
ROUNDS_UNTIL_FAILED = 2  # each of several attempts: a lost packet or two is no failure
OUTCOMES_KEPT, OUTCOMES_UNTIL_LOSSY = 40, 20
LOSS_FRACTION_MIN, LOSS_FRACTION_MENDED = 0.2, 0.05
ATTEMPTS_SUSPICIOUS = 8


@dataclass(frozen=True, slots=True)
class PathState:
    """What the rounds of probes of one path said so far."""

    lost_rounds: int = 0  # in a row
    failing: bool = False
    outcomes: tuple[bool, ...] = ()  # of the newest attempts, oldest first: whether each was answered
    lossy: bool = False  # answers, but not always

    def after(self, *answered: bool) -> PathState:
        """After one more round of attempts, which ends with the first that is answered; that ends a failure at once."""
        outcomes = (*self.outcomes, *answered)[-OUTCOMES_KEPT:]
        lost = outcomes.count(False) / len(outcomes)
        enough = len(outcomes) >= OUTCOMES_UNTIL_LOSSY
        lossy = (enough and lost >= LOSS_FRACTION_MIN) or (self.lossy and lost > LOSS_FRACTION_MENDED)
        if answered[-1]:
            return PathState(outcomes=outcomes, lossy=lossy)
        rounds = min(self.lost_rounds + 1, ROUNDS_UNTIL_FAILED)
        return PathState(rounds, self.failing or rounds >= ROUNDS_UNTIL_FAILED, outcomes, lossy)

    @property
    def suspicious(self) -> bool:
        """Whether to look again in every period."""
        return self.lossy or not all(self.outcomes[-ATTEMPTS_SUSPICIOUS:])


def ring(local: Host, hosts: Iterable[Host]) -> list[Host]:
    """The other hosts in the order of their ordinals, beginning after the local one."""
    others = sorted((host for host in hosts if host.node_id != local.node_id), key=lambda host: host.ordinal)
    after = [host for host in others if host.ordinal > local.ordinal]
    return after + [host for host in others if host.ordinal <= local.ordinal]


def sample(others: Sequence[Host], period: int, suspects: Collection[str]) -> list[Host]:
    """Whom to probe in a period: the rotation, then hosts of `suspects` (node ids) that are not in it."""
    count = min(PEERS_PER_PERIOD_MAX, len(others))
    if not count:
        return []
    start = period * count
    chosen = [others[(start + index) % len(others)] for index in range(count)]
    known = {host.node_id for host in chosen}
    again = [host for host in others if host.node_id in suspects and host.node_id not in known]
    if len(again) > SUSPECTS_PER_PERIOD_MAX:  # they take turns as well
        first = period * SUSPECTS_PER_PERIOD_MAX
        again = [again[(first + index) % len(again)] for index in range(SUSPECTS_PER_PERIOD_MAX)]
    return chosen + again
