"""Messages for scripts that end in an error on the server. Pure."""

from __future__ import annotations

import re

COMMANDS = (
    "EVAL, EVALSHA, TIME, GET, SET, DEL, UNLINK, PEXPIRE, LPUSH, LREM, LTRIM, LLEN, LINDEX and LRANGE (PING and SCAN, "
    "too, for `check` and `reset`)"
)
"""The commands that a user of the server must be allowed to run, for a message."""

_command = re.compile(r"run the '([a-zA-Z0-9|._-]{1,64})' command").search


def refused_command(text: str) -> str:
    """The command that the user may not run, in an error of the server; empty if it does not name one."""
    found = _command(text)
    return "" if found is None else found[1].upper().replace("|", " ")


def said(text: str) -> str | None:
    """The message for the error of a script: what it means and what to do; None for any other error.

    Arguments:
        text: the server's message, which may contain a user or a key.
    """
    if text.startswith("NOTIFYUSER") or "ACL failure in script" in text:
        command = refused_command(text)
        return (
            "The Redis user may not run all of the commands that counting needs, or not on these keys"
            + (f" (refused is {command})" if command else "")
            + f". Its ACL has to allow {COMMANDS} on the keys of the limits."
        )
    if text.startswith("MISCONF"):
        return (
            "Redis accepts no writes because it could not save its data to disk (stop-writes-on-bgsave-error), so nothing "
            "was counted. The server's log says why."
        )
    if text.startswith("BUSY "):
        return "Redis is busy with a script that runs for too long, so nothing was counted. Find out which program runs it."
    if "SCRIPT KILL" in text:
        return "The script was killed on the server before it wrote anything, so nothing was counted."
    return None
