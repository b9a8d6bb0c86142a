"""Other programs on the same images: `python -m benchmarks.peers.compare`."""
