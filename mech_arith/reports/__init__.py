"""What is made from finished runs: figures, pages, tables for papers, W&B."""
