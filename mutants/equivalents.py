"""Faults that change nothing that a test could see, each with the reason. They are left out of the score."""

from __future__ import annotations

EQUIVALENTS: dict[tuple[str, str, str], str] = {}
"""By file, the line without the fault and the line with it, both without indentation."""
