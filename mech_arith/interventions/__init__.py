"""Edits of coordinates and what becomes of the answers.

Nothing heavy is imported here, so that a mistyped number is said at once.
"""

FIRST_DRAWS = 20
"""Directions of each kind that are drawn whatever they cost, where draws stop early. Means are over
them alone: draws go on for as long as few of them cost as much as the target, so that the mean over
all would lean towards what stopped them."""
