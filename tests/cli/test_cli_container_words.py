"""What `fairway show` says of what surrounds a container."""

from __future__ import annotations

from cli import container_words
from proto import objects_pb2


def test_what_surrounds_a_container_in_words() -> None:
    spec = objects_pb2.ServiceSpec(networks=["default", "shared"], external_networks={"shared": "id"})
    assert container_words.network_words(spec) == "default, shared (another app's)"
    container = objects_pb2.ContainerSpec(
        post_start=[objects_pb2.Hook(command=["./warm", "up"])],
        pre_stop=[objects_pb2.Hook(command=["x" * 100])],
        logging=objects_pb2.Logging(size_bytes_max=10 << 20, files_max=3, compress=True),
        shares=objects_pb2.KernelShares(cpus="0-3", cpu_shares=512, cpu_period_us=20_000, swap_bytes=-1),
    )
    assert container_words.hook_words(container) == f"post_start ./warm up, pre_stop {'x' * 57}..."
    assert container_words.logging_words(container) == "at most 3 files, files of 10M, compressed"
    assert container_words.share_words(container.shares) == (
        "cores 0-3, 512 CPU shares, CPU period 20000 us, swap unbounded"
    )
    isolation = objects_pb2.Isolation(runtime="crun", user_namespace=True)
    assert container_words.isolation_words(isolation) == "runtime crun, user namespace"
    assert container_words.sharing_words(objects_pb2.Sharing(processes="web", ipc="web")) == "processes and IPC of web"
    command = objects_pb2.StringList(values=["up"])
    assert container_words.init_words(objects_pb2.InitTask(image="migrate:1", command=command)) == "migrate:1 up"
    assert container_words.init_words(objects_pb2.InitTask(command=command)) == "up"


def test_what_is_not_said_is_not_shown() -> None:
    container = objects_pb2.ContainerSpec()
    assert container_words.hook_words(container) == container_words.logging_words(container) == ""
    assert container_words.share_words(container.shares) == ""
    assert (
        container_words.isolation_words(container.isolation) == container_words.sharing_words(container.sharing) == ""
    )
    container.logging.driver = objects_pb2.Logging.DRIVER_NONE
    assert container_words.logging_words(container) == "not kept"
    container.logging.Clear()
    container.logging.SetInParent()
    assert container_words.logging_words(container) == "as the hosts say"


def test_where_logs_are_sent_and_how_much_of_them_is_shown() -> None:
    container = objects_pb2.ContainerSpec(
        logging=objects_pb2.Logging(
            driver=objects_pb2.Logging.DRIVER_SYSLOG, age_s_max=3600, lines_per_s_max=100, bytes_per_s_max=1 << 20
        )
    )
    said = "syslog, a new file after 1h, 100 lines a second, 1M a second"
    assert container_words.logging_words(container) == said
