"""Writes the completion for zsh and fish from the program's own options: ``make completion``.

shtab reads the parser. What it cannot know is added here: what a word stands for, by its metavar.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import shtab

from xconnectd.cli import arguments

DOCS: Final = Path(__file__).parents[1] / "docs"
SHELLS: Final = ("zsh", "fish")

NAMES: Final = r"""
FNR == 1 || /^[^ #]/ { on = /^links:/; indent = 0 }
!on || /^[^ ]/ || /^ *(#|$)/ { next }
{
    sub(/ #.*/, ""); match($0, /^ +/); gsub(/["{},\047]/, " "); gsub(/:( |$)/, " "); b = ""
    if (!indent) indent = RLENGTH
    if (RLENGTH == indent) { a = $1; if (NF == 2) b = $2 }
    for (i = NF; i > 1; i--) if ($(i - 1) == "to" && (RLENGTH == indent || i == 2)) b = $i
    if (b != "") print a "\n" b "\n" a ((a b) ~ /:/ ? "," : ":") b
}
""".strip()
"""An awk program: the names of the links in YAML files, and those of their ends.

It knows how such files are written by hand, and nothing else of YAML: a shell waits for it at
each TAB.
"""

SAMPLE: Final = """\
version: 1
defaults: {mode: auto}
links:
  # a leaf
  xa: xb   # short
  "xc":
    to: 'xd'
    description: from xc to there
  xe: {mode: tc, to: xf}
  xg:e1: {to: xh:e1}
x-mine:
  to: nothing
"""
"""A file for tests: every way in which a link is written."""

_ZSH: Final = f"""
_xconnectd_names() {{
  local -a files=(/etc/xconnect.yaml(N) /etc/xconnectd/*.yaml(N)) names
  local -i at=${{words[(I)(-c|--config)]}}
  if (( at )); then
    files=(${{(Q)words[at + 1]}}(N) ${{(Q)words[at + 1]}}/*.yaml(N))
    files=(${{^files}}(N-.))
  fi
  (( $#files )) && names=(${{(f)"$(awk '{NAMES}' $files 2>/dev/null)"}})
  compadd -a names
  _xconnectd_interfaces
}}

_xconnectd_interfaces() {{
  compadd -- /sys/class/net/*(N:t)
}}

_xconnectd_yaml() {{
  _files -g '*.yaml'
}}

_xconnectd_topologies() {{
  _files -g '*.(yml|yaml)'
}}
"""

_FISH: Final = f"""
function _xconnectd_names
  set -l files /etc/xconnect.yaml /etc/xconnectd/*.yaml
  set -l words (commandline -opc)
  for option in -c --config
    if set -l at (contains -i -- $option $words)
      set -l given $words[(math $at + 1)]
      set files $given $given/*.yaml
    end
  end
  for file in $files
    test -f $file; and awk '{NAMES}' $file 2>/dev/null
  end
  _xconnectd_interfaces
end

function _xconnectd_interfaces
  path basename /sys/class/net/*
end
"""

_LINK: Final = {"zsh": "_xconnectd_names", "fish": "(_xconnectd_names)"}
_INTERFACE: Final = {"zsh": "_xconnectd_interfaces", "fish": "(_xconnectd_interfaces)"}
_YAML: Final = {"zsh": "_xconnectd_yaml", "fish": "(__fish_complete_suffix .yaml)"}
_WORDS: Final = {
    **dict.fromkeys(("LINK", "LINK|FILTER", "END"), _LINK),
    **dict.fromkeys(("IFACE", "A", "B", "NEW-END"), _INTERFACE),
    **dict.fromkeys(("FILE", "FILE|DIR"), _YAML),
    "TOPOLOGY": {"zsh": "_xconnectd_topologies", "fish": "(__fish_complete_suffix .yml)"},
}


def generated(shell: str) -> str:
    parser = arguments.make_parser()
    _tell(parser)
    text: str = shtab.complete(parser, shell, preamble={"zsh": _ZSH, "fish": _FISH})
    return text.rstrip("\n") + "\n"


def _tell(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _tell(command)
        elif action.dest == "write":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _WORDS:
            action.complete = _WORDS[str(action.metavar)]  # type: ignore[attr-defined]


if __name__ == "__main__":
    for each in SHELLS:
        (DOCS / f"xconnectd.{each}").write_text(generated(each))
