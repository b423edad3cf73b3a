"""The commands about images and the registries that they come from."""

from __future__ import annotations

from cli.command import OUTPUT, QUIET, WIDE, Command, flag, option, repeated

_CONTAINERD = "/run/containerd/containerd.sock"
_IMAGE = option("image", metavar="IMAGE", help="a name, or the beginning of a digest")
_REGISTRY = option("registry", metavar="REGISTRY", help="HOST or HOST:PORT, as images are named after it; docker.io")

IMAGES: tuple[Command, ...] = (
    Command(
        "image pull",
        "cli.commands.images:pull",
        "Pull an image from its registry into the cluster: what its name stands for there now.",
        ("fairway image pull redis:7", "fairway image pull registry.example:5000/team/web@sha256:..."),
        (option("images", metavar="IMAGE", nargs="+"), OUTPUT),
        "run",
    ),
    Command(
        "image load",
        "cli.commands.images:load",
        "Load an image archive ('docker save' or OCI layout, as a tar file) into the cluster.",
        ("fairway image load web.tar", "docker save web:1 | fairway image load -"),
        (
            option("file", metavar="FILE", help="a tar file, or - for standard input"),
            option("--name", default="", help="name of the image, instead of the archive's own"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "image push",
        "cli.commands.images:push",
        "Give the cluster an image archive, or an image of the containerd on this machine.",
        ("fairway image push web.tar", "fairway image push web:1", "fairway image push -n k8s.io web:1 --name web:2"),
        (
            option(
                "what", metavar="FILE|IMAGE", help="a tar file, - for standard input, or a name that containerd has"
            ),
            option("--name", default="", help="name of the image, instead of its own"),
            option("-n", "--namespace", default="default", help="containerd's (default: default)"),
            option("--containerd", metavar="SOCKET", default=_CONTAINERD, help=f"its address (default {_CONTAINERD})"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "image ls",
        "cli.commands.images:ls",
        "List the images that the cluster holds.",
        ("fairway image ls",),
        (QUIET, WIDE),
        "run",
    ),
    Command(
        "image inspect",
        "cli.commands.images:inspect",
        "Show an image: where it is, who uses it, its layers and what it says about running it.",
        ("fairway image inspect redis:7", "fairway image inspect redis:7 -o json"),
        (_IMAGE, OUTPUT),
        "run",
    ),
    Command(
        "image tag",
        "cli.commands.images:tag",
        "Give an image of the cluster a further name.",
        ("fairway image tag web:1.4.2 web:stable",),
        (_IMAGE, option("name", metavar="NAME"), OUTPUT),
        "run",
    ),
    Command(
        "image rm",
        "cli.commands.images:rm",
        "Remove an image from every host.",
        ("fairway image rm web:1",),
        (option("image", metavar="IMAGE"), flag("-f", "--force", help="even if a service names it"), OUTPUT),
        "run",
    ),
    Command(
        "image prune",
        "cli.commands.images:prune",
        "Remove the images that no service, no earlier revision of one and no task is made of.",
        ("fairway image prune --dry-run", "fairway image prune --older-than 7d"),
        (
            option("--older-than", metavar="DURATION", default="1h", help="only those that came earlier (default 1h)"),
            flag("--dry-run", help="only say which"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "registry login",
        "cli.commands.registries:login",
        "Give the cluster a user and password for a registry, which are tried and then kept sealed.",
        (
            "fairway registry login docker.io --user ana",
            "pass registry | fairway registry login registry.example -u ana --password-stdin",
        ),
        (
            _REGISTRY,
            option("-u", "--user", required=True, help="<token> where the password is an OAuth 2 refresh token"),
            flag("--password-stdin", help="read the password from standard input"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "registry logout",
        "cli.commands.registries:logout",
        "Forget the user and password for a registry.",
        ("fairway registry logout docker.io",),
        (_REGISTRY, OUTPUT),
        "run",
    ),
    Command(
        "registry set",
        "cli.commands.registries:update",
        "Say how the cluster speaks with a registry; what is not named stays as it is.",
        (
            "fairway registry set registry.example:5000 --ca ca.pem",
            "fairway registry set 10.0.0.5:5000 --insecure",
            "fairway registry set docker.io --mirror mirror.example",
        ),
        (
            _REGISTRY,
            flag("--insecure", help="by plain HTTP"),
            flag("--secure", help="by HTTPS again"),
            option("--ca", metavar="FILE", default="", help="PEM file of a CA to trust, beside the system's"),
            flag("--no-ca", help="trust the system's CAs alone again"),
            repeated("--mirror", "HOST[/PATH]", "a registry that is asked first; may be repeated, replaces all"),
            flag("--no-mirrors", help="ask no mirrors any more"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "registry ls",
        "cli.commands.registries:ls",
        "List the registries that something is set for; passwords are never shown.",
        ("fairway registry ls",),
        (QUIET, OUTPUT),
        "run",
    ),
    Command(
        "registry rm",
        "cli.commands.registries:remove",
        "Forget all that is set for a registry.",
        ("fairway registry rm registry.example:5000",),
        (_REGISTRY, OUTPUT),
        "run",
    ),
)
