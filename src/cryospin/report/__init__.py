"""What a run shows of itself: figures, a page, and the page while the run goes on."""
