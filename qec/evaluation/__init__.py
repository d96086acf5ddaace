"""How accurate decoders are: paired sampling through sinter, tables, figures.

In: a grid of experiments and names of decoders.  Out: collected.csv, tables with intervals,
figures.  Start at ``sweep`` and ``paired_sampler``.
"""
