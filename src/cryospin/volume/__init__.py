"""What a run reconstructs: volumes and the masks they live in."""
