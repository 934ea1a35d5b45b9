"""What it means when a script ends in an error on the server, in words. Pure."""

from __future__ import annotations

COMMANDS = (
    "EVAL, EVALSHA, TIME, GET, SET, DEL, UNLINK, PEXPIRE, LPUSH, LREM, LTRIM, LLEN, LINDEX and LRANGE (PING and SCAN, "
    "too, for `check` and `reset`)"
)
"""What a user of the server needs to be allowed, in words."""


def said(text: str) -> str | None:
    """What an error that a script ends in means, and what to do; None for one that is none of these.

    Arguments:
        text: the server's words, which may name a user or a key.
    """
    if text.startswith("NOTIFYUSER") or "ACL failure in script" in text:
        return (
            "The Redis user may not run all of the commands that counting takes, or not on these keys. "
            f"Its ACL has to allow {COMMANDS} on the keys of the limits."
        )
    if text.startswith("MISCONF"):
        return (
            "Redis accepts no writes since it could not save its data to disk (stop-writes-on-bgsave-error), so nothing "
            "was counted. The server's log says why."
        )
    if text.startswith("BUSY "):
        return "Redis is busy with a script that runs for too long, so nothing was counted. Find out whose it is."
    if "SCRIPT KILL" in text:
        return "The script was killed on the server before it wrote anything, so nothing was counted."
    return None
