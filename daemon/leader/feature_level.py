"""Raises the cluster's feature level when every host knows more: carries out daemon/leader/feature_level_plan.py."""

from __future__ import annotations

import logging

import trio

from daemon.errors import Refused
from daemon.leader.feature_level_plan import plan_level
from daemon.leader.writer import Writer
from raft.features import FEATURE_LEVEL, level_of
from raft.member import Member

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0


async def raise_feature_level(member: Member, writer: Writer) -> None:
    """Runs while this host leads; once a second is often enough for what an upgrade of all hosts brings."""
    while True:
        before = level_of(writer.store)
        if before < FEATURE_LEVEL:
            try:
                wanted, _ = await writer.commit(
                    lambda store, _now, _id: plan_level(store, member.status().voters, FEATURE_LEVEL), "leader"
                )
            except Refused as refused:
                logger.warning("the feature level stays %d for now: %s", before, refused.message)
            else:
                now = level_of(writer.store)  # read back: what is committed counts, not what was asked for
                if now > before:
                    logger.info("every host knows feature level %d: the cluster is at %d now", wanted, now)
        await trio.sleep(LOOK_INTERVAL_S)
