"""Pose hypotheses: kept, compared and optimised."""
