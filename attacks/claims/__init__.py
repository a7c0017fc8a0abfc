"""Says which claims about attacks are true: successes by their images, failures and robust accuracies by the verifier."""

from attacks.claims.accuracy import RobustAccuracy, robust_accuracies
from attacks.claims.aim import Aim
from attacks.claims.claim import Claim, ClaimKind, ClaimVerdict, Judgement
from attacks.claims.judge import Court, judge_claims
from attacks.claims.table import read_claim, read_records, table_in

__all__ = [
    "Aim",
    "Claim",
    "ClaimKind",
    "ClaimVerdict",
    "Court",
    "Judgement",
    "RobustAccuracy",
    "judge_claims",
    "read_claim",
    "read_records",
    "robust_accuracies",
    "table_in",
]
