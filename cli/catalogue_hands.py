"""The commands that lay hands on what runs."""

from __future__ import annotations

from cli.command import DETACH, OUTPUT, TIMEOUT, WIDE, Command, flag, option, repeated

HANDS: tuple[Command, ...] = (
    Command(
        "restart",
        "cli.commands.restart:restart",
        "Replace the tasks of a service as an update of it would, or one task at once.",
        ("fairway restart shop/web", "fairway restart web.2"),
        (option("target", metavar="SERVICE|TASK"), DETACH, TIMEOUT, OUTPUT),
        "run",
    ),
    Command(
        "stop",
        "cli.commands.restart:stop",
        "Stop one task. Its restart policy says whether another follows; to have none, scale the service.",
        ("fairway stop shop/web.2", "fairway stop web.2 --time 1s"),
        (
            option("task", metavar="TASK"),
            option("-t", "--time", metavar="DURATION", default="", help="before it is killed (default: the service's)"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "signal",
        "cli.commands.restart:signal",
        "Send a signal to the main process of a task, or of all tasks of a service.",
        ("fairway signal shop/web -s HUP", "fairway signal web.2 -s USR1"),
        (
            option("-s", "--signal", metavar="SIGNAL", required=True, help="name or number"),
            option("target", metavar="TASK|SERVICE"),
            OUTPUT,
        ),
        "run",
    ),
    Command(
        "attach",
        "cli.commands.attach:attach",
        "Look on at the first process of a task, and type to it where it has stdin_open. It goes on afterwards.",
        ("fairway attach shop/web.2", "fairway attach --no-stdin worker", "fairway attach --detach-keys ctrl-x game.1"),
        (
            flag("--no-stdin", help="only look on"),
            flag("--sig-proxy", help="pass signals on, Ctrl-C too; without it, Ctrl-C leaves"),
            option(
                "--detach-keys",
                metavar="KEYS",
                default="ctrl-p,ctrl-q",
                help="what leaves a task that has a terminal (default ctrl-p,ctrl-q)",
            ),
            option("target", metavar="TASK|SERVICE", help="of a service, the first of its running tasks"),
        ),
        "run",
    ),
    Command(
        "debug",
        "cli.commands.debug:debug",
        "Run a toolbox container beside a task: in its network, among its processes, its files in /proc/1/root.",
        (
            "fairway debug shop/web.2",
            "fairway debug web.2 -- netstat -tln",
            "fairway debug -it --image nicolaka/netshoot:v0.13 db.1 -- tcpdump -ni any port 5432",
        ),
        (
            flag("-i", "--interactive", help="pass standard input on (as at a terminal without a command)"),
            flag("-t", "--tty", help="give it a terminal (as at a terminal without a command)"),
            option(
                "--image", default="", help="default: $FAIRWAY_DEBUG_IMAGE, else busybox:latest; pulled if it lacks"
            ),
            repeated("--env", "NAME=VALUE", "a variable for it; may be repeated"),
            option("--user", default="", help="user, or uid:gid, instead of root"),
            option("target", metavar="TASK|SERVICE", help="of a service, the first of its running tasks"),
            option("command", metavar="-- COMMAND", nargs="...", help="instead of what the image runs"),
        ),
        "run",
    ),
    Command(
        "cp",
        "cli.commands.cp:cp",
        "Copy files or folders between a task and here, by the rules of 'docker cp'.",
        (
            "fairway cp shop/web.2:/etc/nginx/nginx.conf .",
            "fairway cp site/. shop/web.2:/srv/www",
            "fairway cp db.1:/var/lib/data - | gzip > data.tar.gz",
            "tar c site | fairway cp - shop/web.2:/srv",
        ),
        (
            flag("-a", "--archive", help="keep numbers of users and groups (default: root there, yourself here)"),
            flag("-L", "--follow-link", help="copy what SOURCE leads to, where it is a link"),
            flag("-q", "--quiet", help="do not say what was copied"),
            option("source", metavar="SOURCE", help="TASK:PATH, a path here, or - for a tar archive"),
            option("destination", metavar="DESTINATION", help="the same"),
        ),
        "run",
    ),
    Command(
        "port-forward",
        "cli.commands.port_forward:port_forward",
        "Listen on ports here and pass their TCP connections on to a task, until Ctrl-C.",
        (
            "fairway port-forward db.1 5432:5432",
            "fairway port-forward shop/web 8080:80 8443:443",
            "fairway port-forward shop/web :80",
        ),
        (
            option("--address", default="127.0.0.1", help="address here to listen on (default 127.0.0.1)"),
            option(
                "target", metavar="TASK|SERVICE", help="of a service, each connection goes to one of its ready tasks"
            ),
            option(
                "ports", metavar="LOCAL:REMOTE", nargs="+", help="REMOTE alone is the same here, :REMOTE any free one"
            ),
        ),
        "run",
    ),
    Command(
        "stats",
        "cli.commands.stats:stats",
        "Show what tasks use, every second: CPU, memory, network, disk.",
        ("fairway stats", "fairway stats shop/web db.1", "fairway stats shop --no-stream -o json"),
        (
            option("targets", metavar="APP|SERVICE|TASK", nargs="*"),
            flag("--no-stream", help="only once"),
            OUTPUT,
        ),
    ),
    Command(
        "top",
        "cli.commands.stats:top",
        "List the processes of a task. A service stands for the first of its running tasks.",
        ("fairway top shop/web.2", "fairway top web -o wide"),
        (option("target", metavar="TASK|SERVICE"), WIDE),
    ),
    Command(
        "inspect",
        "cli.commands.inspect:inspect",
        "Print all that the cluster keeps of an object: what was asked for, and what became of it.",
        ("fairway inspect service shop/web", "fairway inspect task web.1 -o json", "fairway inspect cluster"),
        (
            option(
                "kind",
                metavar="KIND",
                help="app, service, task, node, image, network, volume, secret, config, policy or cluster",
            ),
            option("name", metavar="NAME", nargs="?", default="", help="name, APP/NAME or id"),
            OUTPUT,
        ),
    ),
)
