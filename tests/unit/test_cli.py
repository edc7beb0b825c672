"""Commands without a running gateway: what they say, where, and with which exit code."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from scrubber import __version__
from scrubber.cli import main
from scrubber.cli.output import count_text
from scrubber.cli.screen import show_blocks
from scrubber.errors import OperatorError, Problem
from scrubber.server import start
from tests.e2e.support import gateway_text, mandate_text, open_way


@pytest.fixture(autouse=True)
def _way(tmp_path: Path) -> None:
    """As root: the supervisor's user reaches the files."""
    open_way(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text(gateway_text(9))
    (tmp_path / "mandate.toml").write_text(mandate_text())
    return tmp_path / "gateway.toml"


def scrubber(*args: str, **env: str) -> Result:
    return CliRunner().invoke(main, list(args), env={"COLUMNS": "200", **env})


def test_version() -> None:
    result = scrubber("--version")
    assert result.output == f"scrubber {__version__}\n"


@pytest.mark.parametrize("command", ["run", "check", "status", "blocks", "block", "unblock", "reload", "reopen"])
def test_every_command_has_help(command: str) -> None:
    result = scrubber(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_check_of_sound_files(files: Path) -> None:
    result = scrubber("check", str(files), str(files.parent / "mandate.toml"))
    assert result.exit_code == 0, result.output
    assert "no problems" in result.stdout
    assert result.stderr == ""


def test_check_names_every_error_with_place_expectation_and_hint(files: Path) -> None:
    files.write_text(gateway_text(9, top="wrokers = 3").replace("127.0.0.1:9", "127.0.0.1"))
    (files.parent / "mandate.toml").write_text(mandate_text().replace('"100000/s burst 100000"', '"fast"'))
    result = scrubber("check", str(files))
    assert result.exit_code == 1
    assert "unknown field 'wrokers'" in result.stdout
    assert "Try: did you mean 'workers'?" in result.stdout
    assert "area[0].origins[0]" in result.stdout
    assert "expected: " in result.stdout
    assert "rule[0].limit" in result.stdout
    assert "3 errors" in result.stdout


def test_check_as_json(files: Path) -> None:
    files.write_text(gateway_text(9, workers=1000))
    result = scrubber("check", "--json", str(files))
    answer = json.loads(result.stdout)
    assert result.exit_code == 1
    assert not answer["ok"]
    assert {"file", "path", "message", "expected", "hint", "severity"} <= answer["problems"][0].keys()
    assert answer["problems"][0]["path"] == "workers"


def test_run_of_a_bad_file_says_everything_on_stderr(files: Path) -> None:
    files.write_text("[[area]]\nname = 3\n")
    result = scrubber("run", str(files))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("error: ") >= 2
    assert result.stderr.splitlines()[-1].startswith("Try: ")


def test_run_of_no_file() -> None:
    result = scrubber("run", "/none/gateway.toml")
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


@pytest.mark.parametrize(
    "args", [["status"], ["blocks"], ["reload"], ["block", "198.51.100.7", "--reason", "x"], ["unblock", "::1"]]
)
def test_without_a_gateway_one_line_and_a_hint(tmp_path: Path, args: list[str]) -> None:
    result = scrubber(*args, "--socket", str(tmp_path / "admin.sock"))
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("scrubber: ")
    assert lines[1].startswith("Try: ") or "start it with" in lines[1]


@pytest.mark.parametrize("command", ["status", "run"])
def test_errors_as_json(tmp_path: Path, command: str) -> None:
    where = ["--socket", str(tmp_path / "admin.sock")] if command == "status" else ["/none/gateway.toml"]
    result = scrubber(command, "--json", *where)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["fault"] == "operator"
    assert result.stderr == ""


WRONG = (
    ["block", "::1"],
    ["block"],
    ["block", "::1", "--reason", "x", "--nonsense"],
    ["block", "::1", "--reason", "x", "--for", "10"],
    ["purge"],
    ["check"],
    ["nonsense"],
    ["--nonsense", "status"],
)


@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_wrong_arguments_as_json(args: list[str]) -> None:
    result = scrubber(*args, "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["fault"] == "operator"
    assert error["message"]
    assert error["hint"].endswith(" --help")
    assert result.stderr == ""
    plain = scrubber(*args)
    assert plain.exit_code == 2
    assert plain.stdout == ""
    assert "Usage: " in plain.stderr


def test_a_reason_that_looks_like_an_option_is_a_reason(tmp_path: Path) -> None:
    result = scrubber("block", "::1", "--reason=--json", "--socket", str(tmp_path / "s"))
    assert result.stdout == ""
    assert result.stderr


BLOCK = {"source": "127.0.0.9", "areas": ["site", "tax"], "rule": "m/flood", "hits": 1234, "case": "00ff"}


def test_blocks_are_shown_whole_in_a_narrow_terminal() -> None:
    console = Console(width=30, record=True, file=StringIO(), soft_wrap=True)
    blocks = [BLOCK | {"ttl_left_s": left} for left in (7500.0, 598.4, 7.6)]
    show_blocks(console, {"count": 10_003, "blocks": blocks})
    lines = [line for line in console.export_text().splitlines() if line.strip()]
    assert lines[0].split() == ["source", "areas", "clause", "left", "hits", "case"]
    rows = [line.split("  ") for line in lines if "127.0.0.9" in line]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["127.0.0.9", "site, tax", "m/flood", left, "1,234", "00ff"] for left in ("2h 05m", "9m 58s", "8s")
    ]
    assert lines[-1] == "10,003 blocks in force, the latest 3 of them here"


def test_no_blocks_is_a_line() -> None:
    console = Console(width=80, record=True, file=StringIO())
    show_blocks(console, {"count": 0, "blocks": []})
    assert console.export_text() == "0 blocks in force\n"


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("x" * 43)
    (tmp_path / "admin.token").chmod(0o644)
    result = scrubber("status", "--socket", str(tmp_path / "admin.sock"))
    assert "may be read by others" in result.stderr


def test_a_socket_where_nobody_listens_any_more(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("x" * 43)
    (tmp_path / "admin.token").chmod(0o600)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "admin.sock"))
    result = scrubber("status", "--socket", str(tmp_path / "admin.sock"))
    assert "no gateway answers at" in result.stderr


def test_a_gateway_file_that_is_bad_names_its_problems(files: Path) -> None:
    files.write_text("nonsense")
    result = scrubber("status", "--gateway", str(files))
    assert result.exit_code == 1
    assert "is not TOML" in result.stderr


@pytest.mark.parametrize("duration", ["10", "ten", "-5s", ""])
def test_a_duration_needs_its_unit(duration: str, tmp_path: Path) -> None:
    result = scrubber("block", "::1", "--reason", "x", "--for", duration, "--socket", str(tmp_path / "s"))
    assert result.exit_code == 2
    assert '"10s"' in result.stderr


def test_a_block_needs_a_reason() -> None:
    result = scrubber("block", "::1")
    assert result.exit_code == 2
    assert "--reason" in result.stderr


def test_no_colour_where_none_is_wanted(files: Path) -> None:
    plain = scrubber("check", str(files), FORCE_COLOR="1", NO_COLOR="1").stdout
    coloured = scrubber("check", str(files), FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[3" not in plain
    assert "\x1b[" in coloured


def test_markup_in_file_names_and_values_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "[red]x.toml"
    file.write_text('"[bold]" = 1\n[[area]]\nname = "[blink]"\n')
    result = scrubber("check", str(file))
    assert "[red]x.toml" in result.stdout
    assert "[blink]" in result.stdout


def test_counting() -> None:
    error, warning = Problem("f", "", "m"), Problem("f", "", "m", severity="warning")
    assert count_text([]) == "no problems"
    assert count_text([error]) == "1 error"
    assert count_text([error, error, warning]) == "2 errors, 1 warning"


# ── what `run` prepares ──


def test_the_state_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    start.make_directory(str(tmp_path / "a" / "state"))
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700
    start.make_directory(str(tmp_path / "a" / "state"))


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(OperatorError, match="not safe") as caught:
        start.make_directory(str(tmp_path / "state"))
    assert "chmod 700" in caught.value.hint


def test_a_link_or_a_file_is_no_state_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OperatorError, match="not safe"):
        start.make_directory(str(tmp_path / "link"))
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match="cannot make"):
        start.make_directory(str(tmp_path / "file"))


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[tuple[int, str]]:
    path = str(tmp_path / "admin.sock")
    fd = start.take_lock(path)
    yield fd, path
    os.close(fd)


def test_a_second_gateway_on_one_socket_is_refused(lock: tuple[int, str]) -> None:
    with pytest.raises(OperatorError, match="another gateway runs") as caught:
        start.take_lock(lock[1])
    assert "state_dir" in caught.value.hint


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")
    os.close(start.take_lock(path))
    os.close(start.take_lock(path))
