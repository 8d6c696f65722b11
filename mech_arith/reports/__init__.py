"""What is made from finished runs: tables for papers."""
