"""Finds the largest layered neighbourhood that verifies: it proposes, the verifier disposes."""
