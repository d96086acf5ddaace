"""Detection events -> network -> edges that have fired -> residual syndrome.

In: detection events and an error model.  Out: the events that matching is left with, and the
logical flip of what the network has committed.  Start at ``predecoder``, then ``unit_cells`` (what
the network sees), ``network`` and ``residual``.
"""
