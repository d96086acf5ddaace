"""PyMatching on a detector error model, how sure it is, and better matching of what is in doubt.

In: a ``SpaceTimeLattice`` and detection events.  Out: predicted logical flips, corrections, gaps.
Start at ``matcher``; ``complementary_gap`` says how sure it is, ``ensemble`` and
``belief_matching`` are the better ones.
"""
