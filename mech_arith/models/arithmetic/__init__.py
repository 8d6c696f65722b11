"""Small models that are trained here to do arithmetic."""
