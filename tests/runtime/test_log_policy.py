"""What is kept of a task's log: said by its spec, the host or neither, and found again by a container's labels."""

from __future__ import annotations

from pathlib import Path

from proto import objects_pb2
from runtime import log_policy
from runtime.log_policy import LogPolicy
from runtime.model import RuntimeSettings

_PATHS = (Path("c.sock"), Path("runc"), Path("logs"), Path("run"))
HOST = RuntimeSettings(*_PATHS, log_size_bytes_max=1000, log_files_max=4)
NONE = objects_pb2.Logging.DRIVER_NONE


def test_what_a_spec_does_not_say_the_host_does_and_labels_carry_it() -> None:
    for said, expected in (
        (None, LogPolicy(1000, 4)),
        (objects_pb2.Logging(), LogPolicy(1000, 4)),
        (objects_pb2.Logging(size_bytes_max=70, compress=True), LogPolicy(70, 4, compress=True)),
        (objects_pb2.Logging(files_max=2), LogPolicy(1000, 2)),
        (objects_pb2.Logging(age_s_max=60), LogPolicy(1000, 4, age_s_max=60)),
        (
            objects_pb2.Logging(lines_per_s_max=5, bytes_per_s_max=6),
            LogPolicy(1000, 4, lines_per_s_max=5, bytes_per_s_max=6),
        ),
        (objects_pb2.Logging(driver=NONE), LogPolicy(1000, 4, kept=False)),
    ):
        spec = objects_pb2.ContainerSpec()
        if said is not None:
            spec.logging.CopyFrom(said)
        assert log_policy.policy_of(spec, HOST) == expected
        assert log_policy.from_labels(log_policy.labels(spec, HOST), HOST) == expected
    assert log_policy.labels(objects_pb2.ContainerSpec(), HOST) == {}
    for damaged in ("", "x y z", "1 2", "1 2 3 4"):
        assert log_policy.from_labels({log_policy.LABEL: damaged}, HOST) == LogPolicy(1000, 4)
