"""Slicing, insertion, scoring and normal equations: `reference` defines them, `cpu` and `cuda` make them fast."""
