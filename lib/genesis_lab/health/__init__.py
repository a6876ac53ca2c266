"""Is this machine ready, and which teachers can it ask? Small checks of one line: what is, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from genesis_lab.errors import GenesisError
from genesis_lab.health.machine import MACHINE, Check
from genesis_lab.health.teachers import TEACHERS, learned_limits, providers_ready, teacher_checks, write_params

__all__ = [
    "MACHINE",
    "TEACHERS",
    "Check",
    "check_machine",
    "check_teachers",
    "learned_limits",
    "providers_ready",
    "run_checks",
    "write_params",
]

Checks = Sequence[Callable[[], Check | list[Check]]]


def check_machine() -> list[Check]:
    """What this machine has."""
    return run_checks(MACHINE)


def check_teachers(teacher: str = "") -> list[Check]:
    """Which language models can be asked from here, at no cost; or more of one, which is asked a short question.

    Raises `InvalidInput` where `teacher` (``bedrock:amazon.nova-lite-v1:0``) names no model.
    """
    return run_checks(teacher_checks(teacher) if teacher else TEACHERS)


def run_checks(checks: Checks | None = None) -> list[Check]:
    """The result of every check, in order; default: all. A check that itself breaks is a FAIL, never a crash."""
    if checks is not None:
        return [found for check in checks for found in _guarded(check)]
    with ThreadPoolExecutor(1) as waiting:  # the network is waited for while the machine is looked at
        teachers = waiting.submit(check_teachers)
        return [*check_machine(), *teachers.result()]


def _guarded(check: Callable[[], Check | list[Check]]) -> list[Check]:
    try:
        found = check()
    except (GenesisError, ImportError, OSError, RuntimeError) as error:
        name = getattr(check, "func", check).__name__.removeprefix("check_")
        return [Check(name, "FAIL", " ".join(str(error).split()), "report this: a check should not break")]
    return found if isinstance(found, list) else [found]
