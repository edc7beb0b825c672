"""A mandate never goes back: per authority and id, over reloads, new supervisors and upgrades."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrubber.control.policy import PolicyInForce, compile_again, compile_answers, compile_files, from_image, read_again
from scrubber.errors import FilesRefused, Problem
from scrubber.mandate.load import load_all
from tests.unit.files import HEAD, MINIMAL_GATEWAY, write

HEAD_NOW = HEAD.replace("expires = 2026", "expires = 2099")
RULE = '[[rule]]\nname = "a"\nper = "client"\nlimit = "1/s"\nthen = "throttle"\n'


def text(serial: int, rule: str = RULE, head: str = HEAD_NOW) -> str:
    return head.replace("serial = 1", f"serial = {serial}") + rule


@pytest.fixture
def third(tmp_path: Path) -> PolicyInForce:
    """In force: serial 3."""
    loaded = load_all(write(tmp_path, MINIMAL_GATEWAY, m=text(3)))
    return compile_files(loaded.gateway, loaded.mandates, {}, 1)[0]


def after(policy: PolicyInForce, mandate: str) -> PolicyInForce | Problem:
    """What a reload makes of that mandate: the next policy, or the one reason against it."""
    Path(policy.gateway.file).with_name("m.toml").write_text(mandate, encoding="utf-8")
    try:
        return read_again(policy, policy.gateway.limits.connections_max)[0]
    except FilesRefused as refused:
        (problem,) = refused.problems
        return problem


def test_a_higher_serial_and_the_same_again_are_taken(third: PolicyInForce) -> None:
    again = after(third, "# another comment\n" + text(3).replace(" = ", "  =  "))
    assert isinstance(again, PolicyInForce)
    assert again.accepted == third.accepted
    fourth = after(again, text(4, RULE.replace("1/s", "2/s")))
    assert isinstance(fourth, PolicyInForce)
    assert [each.serial for each in fourth.accepted] == [4]


def test_a_lower_serial_is_refused(third: PolicyInForce) -> None:
    problem = after(third, text(2))
    assert isinstance(problem, Problem)
    assert (problem.path, problem.expected) == ("mandate.serial", "4 or higher")
    assert "serial 3 was accepted before 2" in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    "change", [("1/s", "2/s"), ('then = "throttle"', 'then = "deny"'), ("a letter", "another letter")]
)
def test_an_equal_serial_stands_for_one_content(third: PolicyInForce, change: tuple[str, str]) -> None:
    problem = after(third, text(3).replace(*change))
    assert isinstance(problem, Problem)
    assert (problem.path, problem.expected) == ("mandate.serial", "4 or higher")
    assert "with another content" in problem.message
    assert "higher serial" in problem.hint


def test_another_authority_counts_for_itself(third: PolicyInForce) -> None:
    other = after(third, text(1).replace('"Example CERT"', '"Another"'))
    assert isinstance(other, PolicyInForce)
    assert [(each.authority, each.serial) for each in other.accepted] == [("Another", 1), ("Example CERT", 3)]


def test_taking_it_out_forgets_nothing(third: PolicyInForce) -> None:
    """Nor does a new supervisor, which has the image alone, nor what is compiled anew without a reload."""
    file = Path(third.gateway.file)
    file.write_text(MINIMAL_GATEWAY.replace("mandates", "#"), encoding="utf-8")
    out, compiled, _ = read_again(third, third.gateway.limits.connections_max)
    assert out.mandates == ()
    for policy in (out, from_image(compiled.image), compile_again(out)[0], compile_answers(out, {})[0]):
        assert policy.accepted == third.accepted
        file.write_text(MINIMAL_GATEWAY, encoding="utf-8")
        assert isinstance(after(policy, text(2)), Problem)
        assert isinstance(after(policy, text(3, RULE.replace("1/s", "2/s"))), Problem)
        assert isinstance(after(policy, text(3)), PolicyInForce)


def test_lists_are_part_of_the_content_by_their_digest(third: PolicyInForce) -> None:
    listed = f'[proportion]\nnever_block_files = [{{ path = "l.txt", sha256 = "{"0" * 64}" }}]\n'
    file = Path(third.gateway.file)
    file.with_name("l.txt").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    problem = after(third, text(3, listed.replace("0" * 64, empty) + RULE))
    assert isinstance(problem, Problem)
    assert "with another content" in problem.message
