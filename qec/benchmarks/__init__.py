"""What decoding costs, in time and in logical errors.

In: a grid of experiments.  Out: tables, JSON and figures.  Start at ``decoding_time``, which is
`qec benchmark`.
"""
