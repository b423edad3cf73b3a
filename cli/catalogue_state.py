"""The commands for the cluster's state: consensus, backups, and what to do after a disaster."""

from __future__ import annotations

from cli.command import LABEL, OUTPUT, Command, flag, option

_BACKUP_FILE = option("file", metavar="FILE", help="the backup")
_PLAN = flag("--plan", help="only say what would be kept and what lost")
_YES = flag("-y", "--yes", help="do not ask")

STATE: tuple[Command, ...] = (
    Command(
        "raft status",
        "cli.commands.raft:status",
        "Show who votes and leads, how far each is, and what losing each host would mean.",
        ("fairway raft status", "fairway raft status -o json"),
        (OUTPUT,),
        "state",
    ),
    Command(
        "raft transfer",
        "cli.commands.raft:transfer",
        "Let another voter lead, in a moment and without an election.",
        ("fairway raft transfer host-2", "fairway raft transfer   # whichever is nearest to the leader's log"),
        (
            option("node", metavar="NODE", nargs="?", default="", help="the voter that is to lead"),
            OUTPUT,
        ),
        "state",
    ),
    Command(
        "backup create",
        "cli.commands.backup:create",
        "Write the cluster's state to a file, as it is at one moment, while everything goes on.",
        ("fairway backup create prod.fairway-backup --passphrase-file /root/passphrase",),
        (
            option("file", metavar="FILE", help="the file to write; it must not exist"),
            option(
                "--passphrase-file", required=True, help="its first line seals the cluster key; - for standard input"
            ),
            OUTPUT,
        ),
        "state",
    ),
    Command(
        "backup verify",
        "cli.commands.backup:verify",
        "Check a backup, every byte and every object, without a cluster.",
        (
            "fairway backup verify prod.fairway-backup",
            "fairway backup verify prod.fairway-backup --passphrase-file /root/passphrase",
        ),
        (
            _BACKUP_FILE,
            option("--passphrase-file", default="", help="also check that it opens the cluster key"),
            OUTPUT,
        ),
        "state",
    ),
    Command(
        "restore",
        "cli.commands.backup:restore",
        "Make this host, which belongs to no cluster, the only voter of the cluster in a backup.",
        (
            "fairway restore prod.fairway-backup --passphrase-file /root/passphrase --plan",
            "fairway restore prod.fairway-backup --passphrase-file /root/passphrase",
        ),
        (
            _BACKUP_FILE,
            option("--passphrase-file", required=True, help="the passphrase that the backup was made with"),
            option("--name", default="", help="name of this host (default: its host name)"),
            option("--address", default="", help="address that other hosts reach this one by"),
            LABEL,
            flag("--no-context", help="do not store the operator's certificate"),
            _PLAN,
            _YES,
            OUTPUT,
        ),
        "state",
    ),
    Command(
        "recover",
        "cli.commands.backup:recover",
        "After a majority of the voters is lost for good: go on with what this voter has.",
        ("fairway recover --plan", "fairway recover"),
        (_PLAN, _YES, OUTPUT),
        "state",
    ),
)
