"""Types for annotations. This module imports `limits`, so only the `__init__` modules import it, and only when you use a name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from limits import RateLimitItem

LimitNotation: TypeAlias = str | RateLimitItem | Iterable[str | RateLimitItem] | None
"""One limit or several in the notation of `limits`. None is no limit."""
