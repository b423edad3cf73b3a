"""A deploy: from the app as it is asked for and the store to what changes, in words and as a transaction. Pure.

Services that do not differ are left untouched. A change that needs new tasks counts the service's generation
up; the number of replicas, labels, balancing and floating addresses do not. Services that are no longer in the file
are marked as being removed; the orchestrator stops their tasks and deletes them. Volumes outlive what used them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.deploying.app_changes import balancing_changes, map_changes, rollout_changes, says_rollout, spec_changes
from daemon.deploying.app_checks import check_app
from daemon.deploying.app_warnings import warnings_of
from daemon.deploying.autoscale_checks import autoscale_changes, settled_app
from daemon.deploying.budget_checks import budget_changes, says_budget
from daemon.deploying.container_checks import says_settings
from daemon.deploying.device_checks import says_devices
from daemon.deploying.exposure_checks import check_floating
from daemon.deploying.external_plan import check_shared_name, names_external, says_external, settle_external
from daemon.deploying.job_changes import completion_changes, course_changes, settle_runs
from daemon.deploying.lifecycle_checks import settle_init_images
from daemon.deploying.node_changes_plan import plan_remove_node, plan_update_node
from daemon.deploying.placement_checks import says_placement
from daemon.deploying.port_leases_plan import PortLeases, settle_vip
from daemon.deploying.precedence_checks import precedence_changes, says_precedence
from daemon.deploying.quota_changes_plan import quota_warnings
from daemon.deploying.restart_changes_plan import with_restart
from daemon.deploying.revisions_plan import start_rollout
from daemon.deploying.service_changes_plan import (
    mark_removing,
    plan_remove_app,
    plan_remove_service,
    plan_scale,
)
from daemon.deploying.task_file_plan import AppFiles
from daemon.errors import Kind, Refused
from daemon.orchestration.external_parts import external_ids
from daemon.orchestration.image_lookup import find_image
from daemon.orchestration.kinds import follows_hosts, is_job, needs_kinds, slots_of
from daemon.orchestration.leases import LeasePool
from daemon.orchestration.quota_plan import check_volumes
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

__all__ = [
    "plan_deploy",
    "plan_remove_app",
    "plan_remove_node",
    "plan_remove_service",
    "plan_scale",
    "plan_update_node",
]

DEFAULT_TENANT = "default"
Change = control.ServiceChange


def plan_deploy(
    store: Store,
    app: control.AppSpec,
    now_unix_ms: int,
    new_id: Callable[[], str],
    files: Sequence[objects.TaskFile] = (),
) -> tuple[control.PlanAppReply, TransactionBuilder, objects.App]:
    """What the deploy changes, its transaction and the app as it will be. `files`: the secrets and configs that the
    app defines, as they may be stored.

    Raises Refused: INVALID for what the spec says, CONFLICT for a port that another app publishes, EXHAUSTED
    where an address pool or the tenant's quota is, NOT_POSSIBLE while the app's volumes are being removed."""
    check_app(app)
    app = settled_app(store, app, app.tenant or DEFAULT_TENANT)
    check_floating(store, app, app.tenant or DEFAULT_TENANT)
    _check_ipv6(store, app)
    deploy = _Deploy(store, app, now_unix_ms, new_id, files)
    deploy.tenant_and_app()
    deploy.networks()
    deploy.volumes()
    deploy.services()
    deploy.reply.warnings.extend(warnings_of(store, app))
    deploy.reply.warnings.extend(quota_warnings(store, app))
    return deploy.reply, deploy.builder, deploy.stored_app


def _check_ipv6(store: Store, app: control.AppSpec) -> None:
    if any(cluster.network.ipv6_prefix for cluster in store.table(objects.Cluster)):
        return
    for name in sorted(app.networks):
        if line := app.networks[name].ipv6_wanted_line:
            raise Refused(
                f"networks.{name}.enable_ipv6 (line {line}) is true, and this cluster has no IPv6: leave it out "
                "(a cluster has IPv6 unless it was made by `fairway init --ipv6-prefix none`)"
            )


@dataclass
class _Deploy:
    store: Store
    app: control.AppSpec
    now_unix_ms: int
    new_id: Callable[[], str]
    files: Sequence[objects.TaskFile] = ()
    builder: TransactionBuilder = field(default_factory=TransactionBuilder)
    reply: control.PlanAppReply = field(default_factory=control.PlanAppReply)
    stored_app: objects.App = field(default_factory=objects.App)

    def __post_init__(self) -> None:
        self.tenant = self.app.tenant or DEFAULT_TENANT
        self.key = (self.tenant, self.app.name)
        self.leases = LeasePool(self.store)
        self.ports = PortLeases(self.store, self.leases)
        self.nodes = {node.meta.id: node for node in self.store.table(objects.Node)}
        self._settle_references()
        self._settle_files()

    def _settle_references(self) -> None:
        """The specs name networks and volumes of other apps, and images of init tasks; from here on their ids and
        digests too, in a copy of the app."""
        init = [name for name in sorted(self.app.services) if self.app.services[name].container.init_tasks]
        if init or names_external(self.app):
            asked, self.app = self.app, control.AppSpec()
            self.app.CopyFrom(asked)
        if names_external(self.app):
            settle_external(self.store, self.tenant, self.app)
        for name in init:
            before = self.store.table(objects.Service).unique("name", (*self.key, name))
            known = before.spec.container if before is not None else None
            settle_init_images(self.store, self.app.services[name].container, known, self.reply.warnings)

    def _settle_files(self) -> None:
        """The specs name secrets and configs; from here on their versions too, in a copy of the app."""
        if any(spec.container.files for spec in self.app.services.values()):
            asked, self.app = self.app, control.AppSpec()
            self.app.CopyFrom(asked)
            settled = AppFiles(self.store, self.tenant, self.app.name, self.files, self.builder, self.new_id)
            for name in sorted(self.app.services):
                settled.settle(self.app.services[name])

    def meta(self, name: str, labels: Mapping[str, str] | None = None) -> objects.Meta:
        return objects.Meta(id=self.new_id(), name=name, tenant=self.tenant, labels=labels or {}, format=1)

    def tenant_and_app(self) -> None:
        if self.store.table(objects.Tenant).unique("name", self.tenant) is None:
            tenant = objects.Tenant(meta=self.meta(self.tenant))
            self.builder.create(tenant)
        before = self.store.table(objects.App).unique("name", self.key)
        if before is None:
            self.stored_app.meta.CopyFrom(self.meta(self.app.name))
            self.stored_app.generation = 1
            self.builder.create(self.stored_app)
        else:
            self.stored_app.CopyFrom(before)
            self.stored_app.generation += 1
            self.builder.update(self.stored_app)

    def networks(self) -> None:
        """Creates what a service uses. What none uses any more is said here and deleted by the orchestrator
        when the last task on it is gone."""
        used = {
            name for spec in self.app.services.values() for name in spec.networks if name not in spec.external_networks
        }
        table = self.store.table(objects.Network)
        known = {network.meta.name: network for network in table.by("app", self.key)}
        for name in sorted(used):
            spec = self.app.networks[name] if name in self.app.networks else control.NetworkSpec()
            check_shared_name(table, self.tenant, self.app.name, name, spec.shared_name)
            before = known.get(name)
            if before is None:
                network = objects.Network(meta=self.meta(name, spec.labels), app=self.app.name)
                network.internal, network.ipv6_disabled = spec.internal, spec.ipv6_disabled
                network.closed, network.shared_name = spec.closed, spec.shared_name
                lease, network.ordinal = self.leases.network_ordinal(network.meta.id)
                self.builder.create(lease).create(network)
                self.reply.networks_created.append(name)
                continue
            network = objects.Network()
            network.CopyFrom(before)
            network.internal, network.ipv6_disabled = spec.internal, spec.ipv6_disabled
            network.closed, network.shared_name = spec.closed, spec.shared_name
            _set_labels(network.meta, spec.labels)
            if network != before:
                self.builder.update(network)
        if leaving := known.keys() - used:
            elsewhere = external_ids(self.store)
            self.reply.networks_removed.extend(name for name in sorted(leaving) if known[name].meta.id not in elsewhere)

    def volumes(self) -> None:
        table = self.store.table(objects.Volume)
        for name in sorted(self.app.volumes):
            spec = self.app.volumes[name]
            if spec.external:
                continue
            check_shared_name(table, self.tenant, self.app.name, name, spec.shared_name)
            before = table.unique("name", (*self.key, name))
            if before is None:
                self.builder.create(
                    objects.Volume(
                        meta=self.meta(name, spec.labels),
                        app=self.app.name,
                        driver_options=spec.driver_options,
                        shared_name=spec.shared_name,
                    )
                )
                self.reply.volumes_created.append(name)
                continue
            if before.removing:
                raise Refused(
                    f"app {self.app.name} is being removed with its volumes; deploy it again when volume {name} "
                    "is gone",
                    Kind.NOT_POSSIBLE,
                )
            if before.driver_options != spec.driver_options:
                self.reply.warnings.append(f"volume {name} exists already and keeps the options that it has")
            if before.shared_name != spec.shared_name:
                volume = objects.Volume()
                volume.CopyFrom(before)
                volume.shared_name = spec.shared_name
                self.builder.update(volume)
        check_volumes(self.store, self.tenant, len(self.reply.volumes_created))

    def services(self) -> None:
        if any(spec.HasField("autoscale") for spec in self.app.services.values()):
            self.builder.needs(WORKLOADS_LEVEL)
        if any(says_placement(spec) or says_budget(spec) for spec in self.app.services.values()):
            self.builder.needs(WORKLOADS_LEVEL)
        if any(says_external(spec) or says_precedence(spec) for spec in self.app.services.values()):
            self.builder.needs(WORKLOADS_LEVEL)
        if any(needs_kinds(spec) or says_rollout(spec) or says_settings(spec) for spec in self.app.services.values()):
            self.builder.needs(WORKLOADS_LEVEL)
        if any(says_devices(spec) for spec in self.app.services.values()):
            self.builder.needs(WORKLOADS_LEVEL)
        known = {service.meta.name: service for service in self.store.table(objects.Service).by("app", self.key)}
        removed = [known[name] for name in sorted(known.keys() - self.app.services.keys())]
        removed = [service for service in removed if not service.spec.job.once]  # which is not of the file
        leaving = {service.meta.id for service in removed}
        for name in sorted(self.app.services):
            before = known.get(name)
            if before is None:
                self._create(name)
            else:
                self._update(before, self.app.services[name])
        for service in removed:
            if not service.removing:
                self.builder.update(mark_removing(service))
                self.reply.changes.add(
                    action=Change.REMOVE, service=service.meta.name, replicas_before=self._count(service.spec)
                )
        self.ports.settle(self.builder, leaving)

    def _create(self, name: str) -> None:
        spec = self.app.services[name]
        service = objects.Service(meta=self.meta(name, self._labels(name)), app=self.app.name, spec=spec, generation=1)
        service.image_digest = self._digest(spec, None)
        settle_vip(self.store, self.leases, self.builder, service)
        self.ports.want(service)
        self.builder.create(service)
        self.reply.changes.add(action=Change.CREATE, service=name, replicas_after=self._count(spec))

    def _update(self, before: objects.Service, spec: objects.ServiceSpec) -> None:
        name = before.meta.name
        spec = with_restart(before.spec, spec)
        after = objects.Service()
        after.CopyFrom(before)
        after.spec.CopyFrom(spec)
        after.removing = False
        _set_labels(after.meta, self._labels(name))
        reasons = spec_changes(before.spec, spec) + completion_changes(before.spec, spec)
        settle_runs(before, after)
        after.image_digest = self._digest(spec, before)
        same_image = before.spec.container.image == spec.container.image
        if same_image and before.image_digest and after.image_digest != before.image_digest:
            reasons.append(f"image content changed ({_short(before.image_digest)} -> {_short(after.image_digest)})")
        replaced = 0
        if reasons or before.removing:
            if before.removing or is_job(spec) or is_job(before.spec):
                after.generation += 1
                after.ClearField("rollout")
                after.ClearField("traffic")
            else:
                start_rollout(before, after, reasons, self.now_unix_ms)
            replaced = min(self._count(before.spec), self._count(spec))
        quiet_reasons = map_changes("label", before.meta.labels, after.meta.labels)
        quiet_reasons += balancing_changes(before.spec, spec) + rollout_changes(before.spec, spec)
        quiet_reasons += course_changes(before.spec, spec) + budget_changes(before.spec, spec)
        quiet_reasons += precedence_changes(before.spec, spec) + autoscale_changes(before.spec, spec)
        settle_vip(self.store, self.leases, self.builder, after)
        self.ports.want(after)
        change = self.reply.changes.add(
            service=name,
            action=Change.UNCHANGED,
            replicas_before=self._count(before.spec),
            replicas_after=self._count(spec),
            tasks_replaced=replaced,
            reasons=[*reasons, *quiet_reasons],
        )
        if before.removing:
            change.action = Change.CREATE
            change.reasons[:] = ["it was being removed"]
        elif reasons or quiet_reasons:
            change.action = Change.UPDATE
        elif before.spec.replicas != spec.replicas:
            change.action = Change.SCALE
        if after != before:
            self.builder.update(after)

    def _count(self, spec: objects.ServiceSpec) -> int:
        """How many tasks the service has, with the hosts as they are."""
        if not follows_hosts(spec):
            return spec.replicas  # as of most, without a copy of it
        return len(slots_of(objects.Service(spec=spec), self.nodes))

    def _labels(self, name: str) -> Mapping[str, str]:
        return self.app.service_labels[name].values if name in self.app.service_labels else {}

    def _digest(self, spec: objects.ServiceSpec, before: objects.Service | None) -> str:
        """The content that the image's name stands for now; what it stood for before where it is not known."""
        image = find_image(self.store, spec.container.image)
        if image is not None:
            return image.manifest_digest
        if before is not None and before.spec.container.image == spec.container.image:
            return before.image_digest
        return ""


def _set_labels(meta: objects.Meta, labels: Mapping[str, str]) -> None:
    meta.labels.clear()
    meta.labels.update(labels)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12] or "none"
