"""Many edits, few forward passes: sites, clean passes, edited passes, and what is read of them."""
