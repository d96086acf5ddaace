"""`qec completion`: a script that holds all commands and keys, so that typing starts no Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from omegaconf import DictConfig

from qec.cli.commands import COMMANDS
from qec.cli.config import config_groups
from qec.support.errors import QecError
from qec.support.files import config_file

_BASH = """\
_qec() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} key='' list=''
    if [[ $word == = ]]; then key=$before word=''
    elif [[ $before == = ]]; then key=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    if ((COMP_CWORD == 1)); then list={commands}
    elif [[ -n $key ]]; then case ${{COMP_WORDS[1]}}.$key in
{choices}
        esac  # else names of files
    else compopt -o nospace; case ${{COMP_WORDS[1]}} in
{keys}
        esac
    fi
    COMPREPLY=($(compgen -W "$list" -- "$word"))
}}
complete -o default -F _qec qec"""

_ZSH = """\
#compdef qec
_qec() {{
    local -a commands=({commands})
    if ((CURRENT == 2)); then _describe command commands
    elif compset -P 1 '*='; then case $words[2].${{IPREFIX%=}} in
{choices}
        *) _files ;;
        esac
    else case $words[2] in
{keys}
        esac
    fi
}}
if [[ $funcstack[1] == _qec ]]; then _qec "$@"; else compdef _qec qec; fi"""


def completion(config: DictConfig, _: Sequence[str] = ()) -> None:
    """Prints the script for ``config.shell``; QecError where it is neither bash nor zsh."""
    if config.shell not in ("bash", "zsh"):
        raise QecError(f"shell={config.shell} is not supported: use bash or zsh.")
    keys: dict[str, list[str]] = {}
    choices: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        path = config_file(command.keys or name)
        groups = config_groups(path.stem)
        own = re.findall(r"^(?!defaults:)(\w+):", path.read_text(), re.M)
        keys[name] = [*own, *groups]
        choices |= {f"{name}.{group}": names for group, names in groups.items()}
    if config.shell == "bash":
        table, line, names = _BASH, "list='{}'", shlex.quote(" ".join(COMMANDS))
        keys = {name: [f"{key}=" for key in found] for name, found in keys.items()}
        key_line = line
    else:
        table, line, key_line = _ZSH, "compadd -- {}", "compadd -S = -- {}"
        names = shlex.join(f"{name}:{command.summary}" for name, command in COMMANDS.items())
    print(table.format(commands=names, keys=_cases(key_line, keys), choices=_cases(line, choices)))


def _cases(line: str, words: dict[str, list[str]]) -> str:
    return "\n".join(f"        {name}) {line.format(' '.join(w))} ;;" for name, w in words.items())
