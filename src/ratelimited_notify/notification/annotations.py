"""What a recipient can be, for annotations. Nothing here is loaded at run time: `uuid` takes longer to load than the rest."""

from __future__ import annotations

from typing import TypeAlias
from uuid import UUID

Recipient: TypeAlias = str | int | UUID
"""A recipient, or the value of any other field. `5` and `"5"` are the same."""
