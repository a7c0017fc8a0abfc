"""Searches for violations; promises nothing. Every find is replayed by `verifier.check` before it counts."""
