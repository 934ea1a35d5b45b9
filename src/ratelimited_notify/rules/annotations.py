"""What users annotate with. It loads `limits`, so only the faces import it, and they do so when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from limits import RateLimitItem

LimitNotation: TypeAlias = str | RateLimitItem | Iterable[str | RateLimitItem] | None
"""A limit in the notation of `limits`, one or several; None is no limit."""
