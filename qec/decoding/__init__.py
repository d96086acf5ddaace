"""The pipeline as one object: pre-decoder, residual, cascade of matchings, confidence.

In: a circuit or a detector error model, then detection events.  Out: predicted flips, and how sure
they are.  Start at ``decoder``; ``decoder_names`` is the table of all names.
"""
