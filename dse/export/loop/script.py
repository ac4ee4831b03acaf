"""The script that measures proposals: bash, readable, to be run again after a failure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from dse.export.loop.steps import HERE, Step

FILE = "measure.sh"
SETTING = re.compile(r"\$(?:PORT|TASKS|TEXT)\b")
"""The variables that commands may name; any other dollar is a dollar."""
SPECIAL = re.compile(r'[\\"`$]')
"""Characters that mean something between double quotes."""

HEAD = """\
#!/usr/bin/env bash
# Measures what `dse propose` wrote here. A result that is there is kept, so that this can be run
# again after a failure, and results can be removed to measure them anew. Afterwards:
#   {tell}
set -uo pipefail
failed=0
server=""
log=""

# measure FILE COMMAND...: the command writes FILE.partial (its word {{}}), which gets its name
# when the command has ended well. `output FILE COMMAND...`: FILE is what it prints;
# `everything FILE COMMAND...`: and its log with it.
begin() {{
  mkdir -p "$(dirname "$1")"; rm -rf "$1.partial"
  log="logs/$(echo "$1" | tr / _).log"
  echo "measuring $1" >&2
}}
measure() {{
  local file="$1" words=() word; shift
  [ -e "$file" ] && return 0
  begin "$file"
  for word in "$@"; do words+=("${{word//\\{{\\}}/$file.partial}}"); done
  "${{words[@]}}" > "$log" 2>&1 && mv "$file.partial" "$file" && return 0
  echo "failed: $file (see $log)" >&2; failed=1
}}
output() {{
  local file="$1"; shift
  [ -e "$file" ] && return 0
  begin "$file"
  "$@" > "$file.partial" 2> "$log" && mv "$file.partial" "$file" && return 0
  echo "failed: $file (see $log)" >&2; failed=1
}}
everything() {{
  local file="$1"; shift
  [ -e "$file" ] && return 0
  begin "$file"
  "$@" > "$file.partial" 2>&1 && mv "$file.partial" "$file" && return 0
  mv "$file.partial" "$log"
  echo "failed: $file (see $log)" >&2; failed=1
}}
"""
SERVER = """\
# serve NAME COMMAND...: starts a server and waits until it answers.
serve() {
  local name="$1"; shift
  echo "serving $name" >&2
  "$@" > "logs/$name.server.log" 2>&1 & server=$!
  for _ in $(seq 900); do
    curl -sf "http://localhost:$PORT/health" > /dev/null && return 0
    kill -0 "$server" 2> /dev/null || break
    sleep 2
  done
  echo "failed: $name does not answer (see logs/$name.server.log)" >&2; failed=1; stop; return 1
}
stop() {
  [ -n "$server" ] && kill "$server" 2> /dev/null && wait "$server" 2> /dev/null
  server=""
}
trap stop EXIT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A variable of the script that its user may set."""

    name: str
    default: str
    """Empty: it must be set."""
    meaning: str
    is_path: bool = False
    """Relative to the folder that the script is called from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The steps of one model, with the server that some of them need."""

    title: str
    serve: tuple[str, ...] = ()
    """The server's command; empty where no step needs one."""
    name: str = ""
    """Of the server's log."""
    served: tuple[Step, ...] = ()
    """While the server runs."""
    alone: tuple[Step, ...] = ()
    """Afterwards, since they take the device."""


def script(
    sections: Sequence[Section], settings: Sequence[Setting], *, tell: str, remarks: Sequence[str]
) -> str:
    """The text of the script.

    Args:
        sections: in the order of measuring.
        settings: variables that commands name.
        tell: the command that takes the results in.
        remarks: what is not measured, and why.
    """
    # llama-perplexity's last line goes to its log; llama-bench's log must not come into its JSON.
    lines = [HEAD.format(tell=tell)]
    lines += [f"# {remark}" for remark in remarks]
    for setting in settings:
        value = f"${{{setting.name}:-{setting.default}}}"
        if not setting.default:
            value = f"${{{setting.name}:?set it to {setting.meaning}}}"
        lines.append(f'{setting.name}="{value}"  # {setting.meaning}')
        if setting.is_path:
            lines.append(f'{setting.name}="$(realpath "${setting.name}")"')
    lines += ['cd "$(dirname "$0")" && mkdir -p logs || exit 1']
    if any(section.serve for section in sections):
        lines += ["", SERVER]
    for section in sections:
        lines += ["", f"# {section.title}", *_section(section)]
    lines += ["", f"echo {shlex.quote(f'then: {tell}')} >&2", "exit $failed", ""]
    return "\n".join(lines)


def _section(section: Section) -> list[str]:
    lines = []
    if section.serve and section.served:
        missing = " || ".join(f"[ ! -e {shlex.quote(step.file)} ]" for step in section.served)
        lines += [
            f"if {missing}; then",
            f"  if serve {_words([section.name, *section.serve])}; then",
            *(f"    {_line(step)}" for step in section.served),
            "    stop",
            "  fi",
            "fi",
        ]
    return [*lines, *(_line(step) for step in section.alone)]


def _line(step: Step) -> str:
    return f"{step.prints or 'measure'} {_words([step.file, *step.command])}"


def _words(words: Sequence[str]) -> str:
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    """A word as it is, but for the script's settings."""
    if not SETTING.search(word):
        return word if word == HERE else shlex.quote(word)
    parts = SETTING.split(word)
    names = SETTING.findall(word)
    quoted = [SPECIAL.sub(r"\\\g<0>", part) for part in parts]
    return '"' + "".join(a + b for a, b in zip(quoted, [*names, ""], strict=True)) + '"'
