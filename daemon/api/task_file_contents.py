"""What a host gets of the secrets and configs of its own tasks, in the clear. Only on hosts with the cluster key."""

from __future__ import annotations

from daemon.errors import Kind, Refused
from daemon.identity.file_sealing import content_of
from daemon.orchestration.task_files import words_of
from daemon.orchestration.task_states import ended
from proto import objects_pb2 as objects
from proto.host_pb2 import ReadTaskFilesReply
from raft.store import Store


def read_contents(
    store: Store, cluster_id: str, cluster_key: bytes | None, node_id: str, task_id: str
) -> ReadTaskFilesReply:
    """For the host `node_id`, in the order of the task's spec. Raises Refused: UNAVAILABLE where this store may be
    behind, DENIED for another host's task, NOT_FOUND where a version is not there any more."""
    if store.get(objects.Node, node_id) is None:
        raise Refused("who asks is not a host of this cluster", Kind.DENIED)
    task = store.get(objects.Task, task_id)
    if task is None or not task.node_id:
        raise Refused(f"this host has not heard of the task {task_id} yet", Kind.UNAVAILABLE)
    if task.node_id != node_id or ended(task):
        raise Refused(f"task {task.meta.name} is not one that the asking host is to start", Kind.DENIED)
    reply = ReadTaskFilesReply()
    for mount in task.spec.container.files:
        file = store.get(objects.TaskFile, mount.file_id)
        if file is None:
            raise Refused(f"{words_of(mount)} is not in the cluster any more; deploy the app again", Kind.NOT_FOUND)
        reply.files.add(file_id=mount.file_id, content=content_of(file, cluster_id, cluster_key))
    return reply
