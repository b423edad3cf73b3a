"""Hooks and init tasks: what changes them, which images are meant, what is refused."""

from __future__ import annotations

import pytest

from daemon.agent.init_tasks import spec_of
from daemon.errors import Refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from runtime import log_ids
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec


def with_init(*images: str) -> control.AppSpec:
    app = app_spec(web=service_spec(2))
    for image in images:
        app.services["web"].container.init_tasks.add(image=image)
    return app


def test_an_image_of_an_init_task_is_settled_at_deploy_and_its_new_content_replaces_tasks() -> None:
    model = ClusterModel()
    model.load_image("docker.io/library/migrate:1", "b")
    reply = model.deploy(with_init("migrate:1", "", "absent:1"))
    assert [each for each in reply.warnings if "absent:1 of an init task" in each]
    first, own, absent = model.service("web").spec.container.init_tasks
    assert first.image_digest
    assert (own.image_digest, absent.image_digest) == ("", "")
    again = model.deploy(with_init("migrate:1", "", "absent:1"))
    assert again.changes[0].action == control.ServiceChange.UNCHANGED
    model.load_image("docker.io/library/migrate:1", "c")
    changed = model.deploy(with_init("migrate:1", "", "absent:1"))
    assert list(changed.changes[0].reasons) == ["init tasks changed"]


def test_a_changed_hook_replaces_tasks() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=service_spec(2)))
    app = app_spec(web=service_spec(2))
    app.services["web"].container.pre_stop.add(command=["drain"])
    reply = model.deploy(app)
    assert list(reply.changes[0].reasons) == ["pre_stop hooks changed"]
    assert reply.changes[0].tasks_replaced == 2


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (objects.Hook(), "has no command"),
        (objects.Hook(command=["a"], working_dir="b"), "is not an absolute path"),
        (objects.Hook(command=["a"], environment={"": "x"}), "name is empty"),
    ],
)
def test_hooks_that_cannot_be_are_refused(hook: objects.Hook, words: str) -> None:
    app = app_spec(web=service_spec())
    app.services["web"].container.post_start.append(hook)
    with pytest.raises(Refused, match=words):
        ClusterModel().deploy(app)


def test_an_init_task_has_the_settings_of_the_container_and_the_user_of_its_own_image() -> None:
    container = objects.ContainerSpec(
        image="web:1", user="app", working_dir="/srv", environment={"A": "1", "B": "1"}, tty=True, cap_add=["CHOWN"]
    )
    container.command.values.append("serve")
    same = spec_of(container, objects.InitTask(command=objects.StringList(values=["check"]), environment={"B": "2"}))
    assert (same.image, same.user, same.working_dir, list(same.command.values)) == ("web:1", "app", "/srv", ["check"])
    assert (dict(same.environment), same.tty, list(same.cap_add)) == ({"A": "1", "B": "2"}, False, ["CHOWN"])
    other = spec_of(container, objects.InitTask(image="migrate:1", user="db"))
    assert (other.image, other.user, other.working_dir, other.HasField("command")) == ("migrate:1", "db", "", False)


def test_the_containers_of_init_tasks_belong_to_their_task() -> None:
    assert log_ids.task_of(log_ids.of_init("01abc", 2)) == "01abc"
    assert log_ids.task_of("01abc") == "01abc"
