"""`completion`: scripts for bash, zsh and fish, made from the catalogue; names come from the cluster (complete.py)."""

from __future__ import annotations

import argparse
import shlex

from cli.catalogue import COMMANDS, FAMILIES
from cli.commands.complete import WORD, kinds_of
from cli.failure import EXIT_OK

_EVERYWHERE = ("--context", "--help", "--socket")


def print_script(options: argparse.Namespace) -> int:
    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](), end="")
    return EXIT_OK


def words_after() -> dict[str, list[str]]:
    """What may follow each path ("", "node", "node ls"): words, then options."""
    found: dict[str, list[str]] = {"": [], **{family: [] for family in FAMILIES}}
    for command in COMMANDS:
        path = command.path.split()
        for depth, word in enumerate(path):
            around = found[" ".join(path[:depth])]
            if word not in around:
                around.append(word)
        flags = [name for option in command.options for name in option.names if name.startswith("-")]
        choices = [each for option in command.options for each in option.settings.get("choices", ())]
        positional = [each for each in choices if not flags]
        found[command.path] = [*positional, *sorted({*flags, *_EVERYWHERE})]
    return found


def bash() -> str:
    cases = "\n".join(
        f"    {shlex.quote(path)}) words={shlex.quote(' '.join(words))} ;;" for path, words in words_after().items()
    )
    families = "|".join(shlex.quote(family) for family in FAMILIES)
    named = "\n".join(f"    {shlex.quote(path)}) names={shlex.quote(kinds)} ;;" for path, kinds in _kinds().items())
    return f"""_fairway() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} path="" words="" names="" index word
  local -a where=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    word=${{COMP_WORDS[index]}}
    case $word in
      --) compopt -o default; return ;;
      --context|--socket) where+=("$word" "${{COMP_WORDS[index + 1]}}"); ((index++)); continue ;;
      -*) continue ;;
    esac
    case $path in
      "") path=$word ;;
      {families}) path="$path $word" ;;
    esac
  done
  case $path in
{cases}
  esac
  case $path in
{named}
  esac
  case $path in
    deploy|plan|cp|"image load"|"image push"|"context import") [[ $current == -* ]] || compopt -o default ;;
  esac
  if [[ -n $names && $current != -* ]]; then
    words="$words $("${{COMP_WORDS[0]}}" "${{where[@]}}" {WORD} "$names" 2>/dev/null)"
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _fairway fairway
"""


def _kinds() -> dict[str, str]:
    return {command.path: kinds for command in COMMANDS if (kinds := kinds_of(command))}


def zsh() -> str:
    return "#compdef fairway\nautoload -U +X bashcompinit && bashcompinit\n" + bash()


def fish() -> str:
    lines = ["complete -c fairway -f"]
    found = words_after()
    seen = {family: " ".join(found[family]) for family in FAMILIES}
    lines.append(f"complete -c fairway -n __fish_use_subcommand -a {shlex.quote(' '.join(found['']))}")
    for family, below in seen.items():
        seen_words = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in family.split())
        condition = f"{seen_words}; and not __fish_seen_subcommand_from {below}"
        lines.append(f"complete -c fairway -n {shlex.quote(condition)} -a {shlex.quote(below)}")
    for command in COMMANDS:
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path.split())
        for option in command.options:
            names = [name for name in option.names if name.startswith("-")]
            if not names:
                continue
            spelled = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in names)
            choices = option.settings.get("choices")
            takes = f" -x -a {shlex.quote(' '.join(choices))}" if choices else ""
            about = option.settings.get("help", "")
            lines.append(f"complete -c fairway -n {shlex.quote(condition)} {spelled}{takes} -d {shlex.quote(about)}")
    for path, kinds in _kinds().items():
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in path.split())
        asked = shlex.quote(f"(fairway {WORD} {shlex.quote(kinds)} 2>/dev/null)")
        lines.append(f"complete -c fairway -n {shlex.quote(condition)} -a {asked}")
    takes_files = ("cp", "deploy", "plan", "load", "import")
    lines.extend(f"complete -c fairway -n '__fish_seen_subcommand_from {word}' -F" for word in takes_files)
    return "\n".join(lines) + "\n"
