"""Experiments too long to be matched as a whole: windows of rounds, and the rule at their seams.

In: an error model of many rounds, or rounds as they arrive.  Out: predicted flips, window by
window.  Start at ``window_decoder``; ``window_state`` holds the rule at the seams.
"""
