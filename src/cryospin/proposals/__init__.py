"""What suggests poses: a grid over all of them, or a network that has seen the image."""
