"""Decides one query about a multi-label classifier, and says why."""
