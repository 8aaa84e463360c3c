"""Loops over the repeats of a segment, all with the signature `tfm.model.loops.base.Loop`."""
