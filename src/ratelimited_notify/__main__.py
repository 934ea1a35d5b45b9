"""Run the command line tool as `python -m ratelimited_notify`, for when its script is not on the path."""

from __future__ import annotations

from ratelimited_notify.cli import main

if __name__ == "__main__":
    main()
