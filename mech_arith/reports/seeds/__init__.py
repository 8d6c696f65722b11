"""What of a sweep's findings holds in solvers of other seeds, and how far their numbers spread."""
