"""The cost of the import, measured in new interpreters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from measured import ratio
from paired import Contender, in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from measured import Effort, Figure

_PROGRAM = """
import time
started = time.process_time()
{statements}
print(time.process_time() - started)
"""

_USE = """
from ratelimited_notify import rate_limited
@rate_limited("news", limit="1/day")
def send(recipient): ...
"""


def imports(effort: Effort) -> list[Figure]:
    """Processor time of the import alone. The modules are already compiled, and in the file system cache."""
    spent = 0.0
    # Use a separate bytecode cache, so that the modules are compiled in advance even if PYTHONDONTWRITEBYTECODE is set.
    cache = tempfile.mkdtemp()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache

    def importing(statements: str) -> Contender:
        def run(_: Sequence[str]) -> Sequence[object]:
            nonlocal spent
            program = _PROGRAM.format(statements=statements)
            told = subprocess.run(  # noqa: S603  # this interpreter, and a program written above
                [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
            )
            spent += float(told.stdout)
            return (True,)

        return Contender(run)

    times = in_turns(
        {
            "ours": importing("import ratelimited_notify"),
            "used": importing(_USE),
            "limits": importing("import limits"),
            "throttled-py": importing("import throttled"),
            "pyrate-limiter": importing("import pyrate_limiter"),
        },
        iter(lambda: ["once"], None),
        max(11, effort.rounds // 10),
        clock=lambda: spent,
    )
    shutil.rmtree(cache)
    peers = {name: name for name in ("throttled-py", "pyrate-limiter")}
    return [
        ratio("import", times.ratio("ours", "limits"), times.ratios("ours", peers)),
        ratio("import-use", times.ratio("used", "limits"), times.ratios("used", peers)),
    ]


MEASUREMENTS = (imports,)
