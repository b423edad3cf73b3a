"""Every command of `fairway`, in the order in which help lists them. Imports nothing heavy."""

from __future__ import annotations

from cli.catalogue_apps import APPS
from cli.catalogue_budgets import BUDGETS
from cli.catalogue_cluster import CLUSTER
from cli.catalogue_doctor import DOCTOR
from cli.catalogue_files import FILES
from cli.catalogue_hands import HANDS
from cli.catalogue_images import IMAGES
from cli.catalogue_policy import POLICY
from cli.catalogue_rollouts import ROLLOUTS
from cli.catalogue_state import STATE
from cli.command import Command

GROUPS = {
    "run": "run applications",
    "look": "look",
    "hosts": "cluster and hosts",
    "state": "the cluster's state",
    "here": "this command",
}

FAMILIES = {
    "service": "how a service's tasks are replaced",
    "net": "look at the network",
    "net encryption": "look at and change the encryption of what hosts send to each other",
    "net policy": "who may reach whom",
    "node": "look at and change hosts of the cluster",
    "image": "pull, load, look at and remove images",
    "registry": "where images come from, and as whom",
    "secret": "what only the containers that need it may read",
    "config": "files that containers read",
    "quota": "how much a tenant may have",
    "token": "tokens that let hosts join",
    "raft": "look at consensus",
    "backup": "save the cluster's state and check what was saved",
    "context": "clusters that are known here",
    "schema": "what editors check files by",
}

COMMANDS: tuple[Command, ...] = (
    *APPS,
    *IMAGES,
    *HANDS,
    *ROLLOUTS,
    *FILES,
    *DOCTOR,
    *POLICY,
    *BUDGETS,
    *CLUSTER,
    *STATE,
)
