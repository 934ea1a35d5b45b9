"""An input that somebody else may write, the code that reads it, and how such inputs are made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

LONGEST = 1 << 16
"""Bytes. What is made up is no longer."""

_NOISE = (
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"9" * 400,
    b"-1",
    b"1e999",
)


@dataclass(frozen=True)
class Target:
    """One input.

    Arguments:
        name: of the input.
        read: reads it. It raises something only if the library has a defect: errors that the library means to raise are caught.
        seeds: inputs to begin with.
        words: what has a meaning in such inputs.
    """

    name: str
    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()


def made_up(target: Target, random: Random) -> bytes:
    """An input: noise, or one of the seeds in which a few places were changed, cut out, doubled or repeated."""
    if not random.randrange(8):
        return random.randbytes(random.randrange(200))
    content = bytearray(random.choice(target.seeds))
    for _ in range(random.randrange(6)):
        start = random.randrange(len(content) + 1)
        end = min(len(content), start + random.randrange(30))
        piece = bytes(content[start:end])
        others = (*_NOISE, *target.words, piece * 2, piece * random.randrange(200), random.choice(target.seeds))
        content[start : end if random.randrange(2) else start] = random.choice(others)
    return bytes(content[:LONGEST])
