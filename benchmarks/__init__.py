"""Measurements of whole runs and of their parts; run from the project's root as `python -m benchmarks.NAME`."""
