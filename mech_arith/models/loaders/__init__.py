"""The kinds of models that there are, one file each; see `mech_arith.models.kinds`.

They import what they load with when they load: a kind is looked up before anything heavy is needed.
"""
