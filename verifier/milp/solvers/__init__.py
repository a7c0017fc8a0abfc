"""Thin adapters from the neutral model to solvers, one file each."""
