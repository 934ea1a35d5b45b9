"""The command that writes the dashboard and the alert rules to files."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
import yaml

from command import invoke

if TYPE_CHECKING:
    from pathlib import Path

DASHBOARD = "ratelimited-notify-dashboard.json"
ALERTS = "ratelimited-notify-alerts.yaml"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_both_files_are_written_and_named(tmp_path: Path) -> None:
    """They are those of the package, and the command says where they are. A second time, nothing changes."""
    folder = tmp_path / "grafana" / "new"
    first = invoke("monitoring", "export", "--to", folder)
    written = contents(folder)
    second = invoke("monitoring", "export", "--to", folder)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert first.stdout.splitlines() == [
        f"Written: {folder / DASHBOARD}, a dashboard for Grafana.",
        f"Written: {folder / ALERTS}, alert rules for Prometheus.",
    ]
    assert second.stdout.count("Nothing changes: ") == 2
    packaged = files("ratelimited_notify.instrumentation") / "monitoring"
    assert written == {
        DASHBOARD: (packaged / "dashboard.json").read_bytes(),
        ALERTS: (packaged / "alerts.yaml").read_bytes(),
    }
    assert json.loads(written[DASHBOARD])["title"] == "ratelimited-notify"
    assert yaml.safe_load(written[ALERTS])["groups"]
    assert contents(folder) == written


def test_what_somebody_changed_is_kept(tmp_path: Path) -> None:
    """A file with another content is not replaced, and the other file is not written either, unless --force says so."""
    (tmp_path / ALERTS).write_text("groups: []\n")
    refused = invoke("monitoring", "export", "--to", tmp_path)
    kept = contents(tmp_path)
    forced = invoke("monitoring", "export", "--to", tmp_path, "--force")

    assert refused.exit_code == 2
    assert f"{tmp_path / ALERTS} is there with another content" in refused.stderr
    assert "--force" in refused.stderr
    assert kept == {ALERTS: b"groups: []\n"}
    assert forced.exit_code == 0
    assert len(contents(tmp_path)) == 2
    assert yaml.safe_load((tmp_path / ALERTS).read_text())["groups"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_that_cannot_be_written_is_an_error(force: list[str], tmp_path: Path) -> None:
    """The message says why, without a traceback, and nothing is left behind."""
    file = tmp_path / "file"
    file.write_text("")
    run = invoke("monitoring", "export", "--to", file, *force)
    in_the_way = tmp_path / "folder"
    (in_the_way / DASHBOARD).mkdir(parents=True)
    blocked = invoke("monitoring", "export", "--to", in_the_way, "--force")

    assert (run.exit_code, blocked.exit_code) == (1, 1), run.output
    assert f"The files in {file} cannot be written: " in run.stderr
    assert [path.name for path in in_the_way.iterdir()] == [DASHBOARD]


def test_the_folder_must_be_named() -> None:
    """Nothing is written to where nobody expects it."""
    assert invoke("monitoring", "export").exit_code == 2
