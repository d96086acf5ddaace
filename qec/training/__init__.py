"""How the network is made: shots whose edges are known, the loss, the loop.

In: a mixture of error models, or your own.  Out: a checkpoint, and a state that a stopped training
goes on from.  Start at ``loop``.
"""
