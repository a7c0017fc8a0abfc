"""Searches for violations; promises nothing. Every find is replayed by `verifier.check` before it counts."""

from attacks.face import GOALS, METHODS, AttackResult, GoalOptions, run
from attacks.goals import Goal, Rule
from attacks.scenarios import expected_labels, make_goal
from attacks.smallest import run_smallest

__all__ = [
    "GOALS",
    "METHODS",
    "AttackResult",
    "Goal",
    "GoalOptions",
    "Rule",
    "expected_labels",
    "make_goal",
    "run",
    "run_smallest",
]
