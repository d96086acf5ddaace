"""What is decoded: memory experiments, their error models, and where detectors sit.

In: a code, a noise model, or files of Stim.  Out: circuits, detector error models, and a
``SpaceTimeLattice`` of each.  Start at ``lattice``.
"""
