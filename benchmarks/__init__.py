"""Measurements: each module is a script that prints a table, run as ``python -m benchmarks.…``."""
