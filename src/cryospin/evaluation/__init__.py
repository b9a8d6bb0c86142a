"""How good a result is: map against map, half against half, pose against truth."""
