"""Edits: rules from a coordinate to a new coordinate, one file each.

Nothing heavy is imported here, so that a mistyped name is said at once.
"""

from mech_arith.common.registry import Registry

EDITS = Registry("edit", "mech_arith.interventions.edits")
"""Classes by name; `base.find_edit` makes an edit of one. `scale` is the paper's."""

ACTIVATIONS, WEIGHTS = VIA = ("activations", "weights")
"""What an edit is made on."""

NO_EDIT = "none"
