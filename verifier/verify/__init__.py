"""Decides one query: attack, bounds and MILP in turn within one time budget.

- `verify`: the entry point.
- `options`: which engines may decide. `plan`: those engines by role.
- `falsifier`: the interface of attacks. `outcome`: verdict and statistics.
- `investigation`: the stages of one query, resumable. `territory`, `evidence`: what queries on one region share.
"""

from verifier.verify.falsifier import Falsifier, PersistentFalsifier
from verifier.verify.options import EngineChoice, VerifyOptions
from verifier.verify.outcome import Outcome, Stage, Statistics
from verifier.verify.plan import Decide, Plan, plan_for
from verifier.verify.verify import verify

__all__ = [
    "Decide",
    "EngineChoice",
    "Falsifier",
    "Outcome",
    "PersistentFalsifier",
    "Plan",
    "Stage",
    "Statistics",
    "VerifyOptions",
    "plan_for",
    "verify",
]
