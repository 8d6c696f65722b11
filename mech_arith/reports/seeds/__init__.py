"""What of a sweep's findings holds in models of other seeds, and how far their numbers spread."""
