"""Where the file is: whether it is still the same one, and on a disk of this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

Identity: TypeAlias = tuple[int, int]
"""The device and the number of a file on it."""

_MOUNTED: Final = "/proc/self/mountinfo"

_ON_NETWORK: Final = frozenset(
    (
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "smb3",
        "smbfs",
    )
)
_BY_FUSE: Final = ("fuse.ceph", "fuse.davfs", "fuse.gcsfuse", "fuse.gluster", "fuse.rclone", "fuse.s3", "fuse.sshfs")


def identity(path: Path | str) -> Identity | None:
    """Which file is at the path; None if there is none.

    The file is not opened: when any descriptor of a file is closed, SQLite loses its locks on it.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  # each decision does this, and a Path costs as much again
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def identity_unless_empty(path: Path | str) -> Identity | None:
    """`identity`; None also if there is nothing in the file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # as above
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino) if found.st_size else None


def network_of(folder: Path) -> str | None:
    """The kind of network filesystem that the folder is on; None if it is on none, or that cannot be found out."""
    try:
        device = os.stat(folder).st_dev  # noqa: PTH116  # as above
        with open(_MOUNTED, encoding="utf-8", errors="replace") as mounted:  # noqa: PTH123  # as above
            return network_in(mounted.read(), device)
    except OSError:
        return None


def network_in(mounted: str, device: int) -> str | None:
    """`network_of` a device, given Linux's list of what is mounted."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounted.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.partition(" ")[0]
        if len(fields) > 2 and fields[2] == wanted and (kind in _ON_NETWORK or kind.startswith(_BY_FUSE)):
            return kind
    return None
