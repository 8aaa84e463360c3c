"""How the repeats of a segment are run; every loop has the signature of
`tfm.model.loops.base.Loop`.
"""
