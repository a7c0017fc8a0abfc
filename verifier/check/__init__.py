"""The checker: rigorous scores at one image, and replays of counterexamples. NumPy and ONNX Runtime only.

It shares nothing with the engines whose answers it checks: no torch, no solver, no bound code, not even the canonical form.
"""

from verifier.check.enclosure import evaluate_enclosure
from verifier.check.margins import margin_lower_bound, margin_upper_bound
from verifier.check.replay import inside_box_float32, replay

__all__ = ["evaluate_enclosure", "inside_box_float32", "margin_lower_bound", "margin_upper_bound", "replay"]
