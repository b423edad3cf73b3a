"""The commands that say what is wrong: doctor, traces of paths, metrics."""

from __future__ import annotations

from cli.command import OUTPUT, Command, flag, option

DOCTOR: tuple[Command, ...] = (
    Command(
        "doctor",
        "cli.commands.doctor:examine",
        "Check the cluster, every host, DNS and the network, and say what to do. "
        "Exit status 0: all is well; 5: warnings; 6: something is broken.",
        ("fairway doctor", "fairway doctor -o json", "fairway doctor --all"),
        (flag("-a", "--all", help="also what is only worth knowing, and what was looked at"), OUTPUT),
    ),
    Command(
        "net trace",
        "cli.commands.doctor:trace",
        "Walk a packet's way from a task, service or host to a service, task, host, name or address, with live probes, "
        "and name the first hop that fails. Exit status 6 where one does.",
        (
            "fairway net trace shop/web shop/db:5432",
            "fairway net trace web.1 db",
            "fairway net trace host-1 host-2",
            "fairway net trace shop/web example.com:443",
        ),
        (
            option("source", metavar="SOURCE", help="a task, a service (its first ready task) or a host"),
            option("target", metavar="TARGET[:PORT]", help="a service, task, host, DNS name or address"),
            flag("--udp", help="trace UDP instead of TCP"),
            OUTPUT,
        ),
    ),
    Command(
        "metrics",
        "cli.commands.doctor:metrics",
        "Print the metrics of a host in Prometheus' text format.",
        ("fairway metrics", "fairway metrics host-2"),
        (option("node", metavar="NODE", nargs="?", default="", help="name or id of a node (default: the one asked)"),),
    ),
)
