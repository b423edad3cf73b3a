"""Secrets and configs as plans: versions, who uses them, what is refused, what is removed; and how they are sealed."""

from __future__ import annotations

import pytest

from daemon.api.task_file_contents import read_contents
from daemon.deploying.deploy_plan import plan_deploy
from daemon.deploying.service_changes_plan import plan_remove_app
from daemon.deploying.task_file_plan import (
    FILE_BYTES_MAX,
    check_file,
    list_files,
    plan_create_file,
    plan_remove_file,
)
from daemon.errors import Kind, Refused
from daemon.identity.file_sealing import content_of, prepared, same_content
from daemon.identity.sealing import new_key
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

SECRET, CONFIG = objects.FILE_KIND_SECRET, objects.FILE_KIND_CONFIG
KEY = new_key()
CLUSTER = "cluster"


def sealed(name: str, content: bytes, kind: objects.FileKind.ValueType = SECRET) -> objects.TaskFile:
    return prepared(kind, "default", name, content, CLUSTER, KEY)


def using(name: str, kind: objects.FileKind.ValueType = SECRET, **fields: object) -> objects.ServiceSpec:
    spec = service_spec(2)
    spec.container.files.add(kind=kind, name=name, target=f"/run/secrets/{name}", **fields)
    return spec


class Model(ClusterModel):
    """With level 2, as a cluster of this build has it."""

    def create(self, name: str, content: bytes, kind: objects.FileKind.ValueType = SECRET) -> control.CreateFileReply:
        request = control.CreateFileRequest(kind=kind)
        return self.changed(request, sealed(name, content, kind))

    def rotate(self, name: str, content: bytes, keep: bool = False) -> control.CreateFileReply:
        request = control.CreateFileRequest(kind=SECRET, new_version=True, keep_services=keep)
        return self.changed(request, sealed(name, content))

    def changed(self, request: control.CreateFileRequest, file: objects.TaskFile) -> control.CreateFileReply:
        reply, builder = plan_create_file(self.store, file, request, self.now_unix_ms, self.new_id)
        self.apply(builder)
        return reply

    def remove(self, name: str, kind: objects.FileKind.ValueType = SECRET) -> None:
        self.apply(plan_remove_file(self.store, "default", kind, name)[1])

    def deploy_with(self, app: control.AppSpec, *files: objects.TaskFile) -> control.PlanAppReply:
        reply, builder, _ = plan_deploy(self.store, app, self.now_unix_ms, self.new_id, files)
        self.apply(builder)
        return reply

    def versions(self, name: str, kind: objects.FileKind.ValueType = SECRET) -> list[int]:
        return [file.version for file in self.store.table(objects.TaskFile).by("name", ("default", kind, name))]

    def contents(self, service: str) -> set[bytes]:
        """What the hosts of a service's running tasks are told."""
        tasks = self.store.table(objects.Task).by("service", self.service(service).meta.id)
        return {
            read_contents(self.store, CLUSTER, KEY, task.node_id, task.meta.id).files[0].content
            for task in tasks
            if task.status.state == objects.TASK_STATE_RUNNING
        }


def test_a_secret_is_stored_sealed_and_opens_only_as_what_it_is() -> None:
    one, same, other = sealed("pw", b"hunter2"), sealed("pw", b"hunter2"), sealed("pw", b"hunter3")
    assert b"hunter2" not in one.SerializeToString()
    assert one.sealed != same.sealed
    assert same_content(one, same)
    assert not same_content(one, other)
    assert one.fingerprint != sealed("pw2", b"hunter2").fingerprint
    assert content_of(one, CLUSTER, KEY) == b"hunter2"
    for cluster, key, name in ((CLUSTER, new_key(), "pw"), ("another", KEY, "pw"), (CLUSTER, KEY, "other")):
        moved = objects.TaskFile()
        moved.CopyFrom(one)
        moved.meta.name = name
        with pytest.raises(Refused) as refused:
            content_of(moved, cluster, key)
        assert "hunter2" not in refused.value.message
    with pytest.raises(Refused, match="only voters"):
        content_of(one, CLUSTER, None)


def test_a_service_gets_the_newest_version_and_its_host_the_content() -> None:
    model = Model()
    model.create("pw", b"first")
    model.deploy_with(app_spec(web=using("pw")))
    model.settle()
    assert model.contents("web") == {b"first"}
    task = next(iter(model.store.table(objects.Task)))
    other = next(node.meta.id for node in model.store.table(objects.Node) if node.meta.id != task.node_id)
    for node_id, words in ((other, "asking host"), ("stranger", "not a host")):
        with pytest.raises(Refused, match=words) as refused:
            read_contents(model.store, CLUSTER, KEY, node_id, task.meta.id)
        assert refused.value.kind is Kind.DENIED
    with pytest.raises(Refused) as unknown:
        read_contents(model.store, CLUSTER, KEY, other, "no-such-task")
    assert unknown.value.kind is Kind.UNAVAILABLE


def test_a_rotated_secret_makes_new_tasks_unless_services_are_to_be_kept() -> None:
    model = Model()
    model.create("pw", b"first")
    model.deploy_with(app_spec(web=using("pw"), other=service_spec(1)))
    model.settle()
    assert list(model.rotate("pw", b"second", keep=True).services) == []
    assert model.service("web").generation == 1
    reply = model.rotate("pw", b"third")
    assert list(reply.services) == ["shop/web"]
    assert reply.file.version == 3
    model.settle()
    assert model.contents("web") == {b"third"}
    assert model.service("other").generation == 1
    # The first is what the service could go back to; the second nobody ever used.
    assert model.versions("pw") == [1, 3]
    again = model.deploy_with(app_spec(web=using("pw"), other=service_spec(1)))
    assert {change.action for change in again.changes} == {control.ServiceChange.UNCHANGED}


def test_what_an_app_defines_changes_with_its_file_and_goes_with_it() -> None:
    model = Model()
    app = app_spec(web=using("shop_pw"))
    model.deploy_with(app, sealed("shop_pw", b"first"))
    model.settle()
    same = model.deploy_with(app, sealed("shop_pw", b"first"))
    assert same.changes[0].action == control.ServiceChange.UNCHANGED
    reply = model.deploy_with(app, sealed("shop_pw", b"second"))
    assert list(reply.changes[0].reasons) == ["secret shop_pw: version 1 -> 2"]
    model.settle()
    assert model.contents("web") == {b"second"}
    with pytest.raises(Refused, match="Compose file of app shop"):
        model.rotate("shop_pw", b"third")
    with pytest.raises(Refused, match="Compose file of app shop"):
        model.remove("shop_pw")
    _, removal = plan_remove_app(model.store, control.RemoveAppRequest(app="shop"), model.now_unix_ms)
    model.apply(removal)
    model.settle()
    assert model.versions("shop_pw") == []


def test_what_is_in_use_is_not_removed() -> None:
    model = Model()
    model.create("site", b"text", CONFIG)
    model.deploy_with(app_spec(web=using("site", CONFIG)))
    with pytest.raises(Refused, match="in use by shop/web"):
        model.remove("site", CONFIG)
    model.deploy_with(app_spec(web=service_spec(2)))
    model.settle()
    model.remove("site", CONFIG)
    with pytest.raises(Refused) as refused:
        model.remove("site", CONFIG)
    assert refused.value.kind is Kind.NOT_FOUND


def test_names_are_of_one_owner_and_contents_bounded() -> None:
    model = Model()
    with pytest.raises(Refused, match="fairway secret create pw FILE"):
        model.deploy_with(app_spec(web=using("pw")))
    model.create("pw", b"first")
    with pytest.raises(Refused, match="already"):
        model.create("pw", b"second")
    with pytest.raises(Refused, match="an operator's already"):
        model.deploy_with(app_spec(web=using("pw")), sealed("pw", b"first"))
    with pytest.raises(Refused, match="no secret other"):
        model.rotate("other", b"first")
    for name, content in (("a/b", b"x"), ("", b"x"), ("pw", b""), ("pw", b"x" * (FILE_BYTES_MAX + 1))):
        with pytest.raises(Refused):
            check_file(SECRET, name, content)
    check_file(SECRET, "pw", b"x" * FILE_BYTES_MAX)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target": "relative"}, "absolute path"),
        ({"target": "/run/"}, "absolute path"),
        ({"mode": 0o4755}, "owner or mode"),
        ({"uid": 2**32 - 1}, "owner or mode"),
    ],
)
def test_mounts_that_cannot_be_are_refused(fields: dict[str, object], words: str) -> None:
    model = Model()
    spec = using("pw")
    for name, value in fields.items():
        setattr(spec.container.files[0], name, value)
    with pytest.raises(Refused, match=words):
        model.deploy_with(app_spec(web=spec))


def test_two_things_at_one_place_are_refused() -> None:
    spec = using("pw")
    spec.container.files.append(spec.container.files[0])
    with pytest.raises(Refused, match="two things at /run/secrets/pw"):
        Model().deploy_with(app_spec(web=spec))


def test_listings_tell_a_configs_content_and_never_a_secrets() -> None:
    model = Model()
    model.create("pw", b"hunter2")
    model.create("site", b"text", CONFIG)
    (config,) = list_files(model.store, "default", CONFIG, "site")
    assert config.file.content == b"text"
    for name in ("", "pw"):
        (secret,) = list_files(model.store, "default", SECRET, name)
        assert (secret.file.meta.name, secret.file.size_bytes) == ("pw", 7)
        assert (secret.file.sealed, secret.file.fingerprint, secret.file.content) == (b"", b"", b"")
    with pytest.raises(Refused, match="fairway config ls"):
        list_files(model.store, "default", CONFIG, "pw")


def test_a_cluster_with_older_builds_gets_none() -> None:
    model = Model()
    request = control.CreateFileRequest(kind=SECRET)
    _, builder = plan_create_file(model.store, sealed("pw", b"x"), request, model.now_unix_ms, model.new_id)
    assert builder.build("request", "test", 0).feature_level == WORKLOADS_LEVEL
    model.apply(builder)
    _, deploy, _ = plan_deploy(model.store, app_spec(web=using("pw")), model.now_unix_ms, model.new_id)
    assert deploy.build("request", "test", 0).feature_level == WORKLOADS_LEVEL
