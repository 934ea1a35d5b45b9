"""All inputs, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import messages
import notifications
import records
import rule_files
import uris

if TYPE_CHECKING:
    from target import Target

TARGETS: dict[str, Target] = {
    target.name: target for module in (rule_files, notifications, uris, messages, records) for target in module.TARGETS
}

NEED_A_SERVER = ("item in memcached", "keys in Redis", "rules in Redis")
