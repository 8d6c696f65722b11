"""What every room may use: errors, paths, progress, digests, the store, checkpoints."""
