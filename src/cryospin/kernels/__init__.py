"""Slicing, insertion, scoring and normal equations: `reference` defines them, `cpu` makes them fast."""
