"""Stored policies, and those of services, as the network's planners read them. Pure."""

from __future__ import annotations

from net.policy import Peer, Policy, PolicyPort, PolicyRule, Selector
from proto import objects_pb2 as objects


def policy_value(policy: objects.Policy) -> Policy:
    """Of a policy that was applied by itself."""
    tenant = policy.meta.tenant
    return Policy(
        policy_id=policy.meta.id,
        name=policy.meta.name,
        selects=_selector(policy.selects, tenant, ""),
        ingress=_rules(policy.ingress, tenant, "") if policy.HasField("ingress") else None,
        egress=_rules(policy.egress, tenant, "") if policy.HasField("egress") else None,
        dry_run=policy.dry_run,
    )


def policy_of_service(policy: objects.ServicePolicy, service_id: str, tenant: str, app: str, service: str) -> Policy:
    """Of a policy in an app's file: peers without app are of the same app."""
    return Policy(
        policy_id=service_id,
        name=f"{app}/{service}",
        selects=Selector(tenant, app, service),
        ingress=_rules(policy.ingress, tenant, app) if policy.HasField("ingress") else None,
        egress=_rules(policy.egress, tenant, app) if policy.HasField("egress") else None,
        dry_run=policy.dry_run,
    )


def as_applied(service: objects.Service) -> objects.Policy:
    """The policy of a service, as if it had been applied by itself; `service` must have one."""
    own = service.spec.policy
    found = objects.Policy(
        meta=objects.Meta(
            id=service.meta.id,
            name=f"{service.app}/{service.meta.name}",
            tenant=service.meta.tenant,
            version=service.meta.version,
            created_unix_ms=service.meta.created_unix_ms,
            updated_unix_ms=service.meta.updated_unix_ms,
        ),
        selects=objects.PolicySelector(app=service.app, service=service.meta.name),
        dry_run=own.dry_run,
    )
    if own.HasField("ingress"):
        found.ingress.CopyFrom(own.ingress)
    if own.HasField("egress"):
        found.egress.CopyFrom(own.egress)
    for rules in (found.ingress, found.egress):
        for rule in rules.rules:
            for peer in rule.peers:
                if peer.HasField("services") and not peer.services.tenant and not peer.services.app:
                    peer.services.app = service.app
    return found


def _rules(rules: objects.PolicyRules, tenant: str, app: str) -> tuple[PolicyRule, ...]:
    return tuple(
        PolicyRule(
            tuple(_peer(peer, tenant, app) for peer in rule.peers),
            tuple(PolicyPort(port.protocol, port.first, port.last or port.first) for port in rule.ports),
        )
        for rule in rules.rules
    )


def _peer(peer: objects.PolicyPeer, tenant: str, app: str) -> Peer:
    if peer.HasField("services"):
        return Peer(_selector(peer.services, tenant, app))
    return Peer(cidr=peer.cidr, excepted=tuple(getattr(peer, "except")))


def _selector(selector: objects.PolicySelector, tenant: str, app: str) -> Selector:
    """`tenant` and `app`: where it names neither."""
    return Selector(
        selector.tenant or tenant,
        selector.app or ("" if selector.tenant else app),
        selector.service,
        tuple(sorted(selector.labels.items())),
    )
