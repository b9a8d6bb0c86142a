"""Rotations, grids on SO(3) and point groups."""
