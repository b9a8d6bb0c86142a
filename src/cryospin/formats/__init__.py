"""Files of the field: particle tables (STAR, cryoSPARC), image stacks and maps, how they are checked and written whole."""
