"""What an operator wants of encryption. Pure."""

from __future__ import annotations

from daemon.errors import Kind, Refused
from daemon.leader.encryption_plan import KEY_AGE_MS_MIN, goal_of, way_of
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


def plan_update_encryption(store: Store, request: control.UpdateEncryptionRequest) -> TransactionBuilder:
    """Notes what is wanted; no operations where it is so already. Raises Refused."""
    builder = TransactionBuilder()
    before = next(iter(store.table(objects.Cluster)))
    after = objects.Cluster()
    after.CopyFrom(before)
    settings = after.network
    if request.encryption != objects.ENCRYPTION_UNSPECIFIED:
        settings.encryption = request.encryption
    if request.key_age_ms_max:
        if request.key_age_ms_max < KEY_AGE_MS_MIN:
            raise Refused(f"keys are replaced every {KEY_AGE_MS_MIN // 1000} s at most; give a greater age")
        settings.key_age_ms_max = request.key_age_ms_max
    if request.rotate:
        if settings.encryption != objects.ENCRYPTION_WIREGUARD:
            raise Refused(
                "there are no keys to replace: the cluster does not encrypt; "
                "turn it on with `fairway network encryption set wireguard`",
                Kind.NOT_POSSIBLE,
            )
        # One that is on its way already is what was asked for.
        if way_of(after.encryption).sending == goal_of(after, after.encryption.sending_since_unix_ms):
            after.encryption.rotation_asked = True
    if after != before:
        builder.update(after)
    return builder
