"""Maps beside maps: how well two agree, how one lies in the other, and which point group one has."""
