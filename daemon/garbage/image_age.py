"""Has the cluster let go of images that nothing uses: carries out image_age_plan.py."""

from __future__ import annotations

import logging

import trio

from daemon.errors import Refused
from daemon.garbage.image_age_plan import disk_is_full, plan_image_ages
from daemon.leader.writer import Writer
from proto import objects_pb2 as objects

logger = logging.getLogger(__name__)

LOOK_S = 300.0
FULL_LOOK_S = 90.0  # while a disk is full: a host takes a minute until an image that left is gone from it


async def keep_image_ages(writer: Writer, keep_days: int) -> None:
    """Of one time in office; only cancellation ends it."""
    while True:
        await trio.sleep(FULL_LOOK_S)
        waited_s = FULL_LOOK_S
        while waited_s < LOOK_S and not any(disk_is_full(node) for node in writer.store.table(objects.Node)):
            await trio.sleep(FULL_LOOK_S)
            waited_s += FULL_LOOK_S
        if not len(writer.store.table(objects.Image)):
            continue
        try:
            leaving, _ = await writer.commit(
                lambda store, now, _id: plan_image_ages(store, now, keep_days), actor="leader"
            )
        except Refused as refused:
            logger.warning("images that nothing uses stay: %s", refused.message)
            continue
        for image in leaving:
            logger.info("image %s leaves the cluster: %s", image.name, image.why)
