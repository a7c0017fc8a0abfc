"""Other libraries' attacks on our goals, cross-checked; and ours in foolbox's style. The libraries are optional."""

from attacks.peers.criterion import CriterionAttack
from attacks.peers.goal_head import GoalHead
from attacks.peers.run_peer import PeerResult, run_foolbox, run_torchattacks

__all__ = ["CriterionAttack", "GoalHead", "PeerResult", "run_foolbox", "run_torchattacks"]
