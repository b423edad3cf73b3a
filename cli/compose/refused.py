"""Keys of a service in the Compose Specification that have no meaning on a cluster, and what to do instead."""

from __future__ import annotations

REFUSED: dict[str, str] = {
    "attach": "a deploy shows no output; see fairway logs",
    "blkio_config": "disks are not shared out by weight",
    "build": "build the image elsewhere, push it to a registry or 'fairway image load' it, and name it in image",
    "cgroup_parent": "control groups are laid out by Fairway",
    "container_name": "tasks are named SERVICE.1, SERVICE.2, ...",
    "cpu_count": "write deploy.resources.limits.cpus",
    "cpu_percent": "write deploy.resources.limits.cpus",
    "cpu_rt_period": "tasks have no real-time share",
    "cpu_rt_runtime": "tasks have no real-time share",
    "credential_spec": "it is for Windows",
    "develop": "it is for building and watching on one machine",
    "device_cgroup_rules": "name the devices in devices",
    "external_links": "services of a shared network find each other as SERVICE.APP",
    "isolation": "it is for Windows",
    "links": "services of a network find each other by name; leave it out, or give the other one an alias",
    "mac_address": "addresses are given out by Fairway",
    "mem_swappiness": "control groups of version 2 have none; write memswap_limit",
    "models": "there are no models",
    "oom_kill_disable": "a task that cannot be ended would block its host; raise deploy.resources.limits.memory",
    "privileged": "it would be root on the host; name what the service needs in cap_add and devices",
    "provider": "only containers are services here",
    "storage_opt": "the size of a container's own files cannot be limited; use a tmpfs with a size",
    "use_api_socket": "there is no Docker API to use",
    "uts": "tasks have a host name of their own; set it in hostname",
    "volumes_from": "name the volumes in volumes",
}
