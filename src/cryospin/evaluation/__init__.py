"""How good a result is: against the truth, against the true poses of its images, and how evenly its views lie."""
