"""The stages of a run: exploration, competition and refinement. `pipeline` strings them together."""
