"""Measures top-k verification on three published networks; how to run it is in `__main__`."""
