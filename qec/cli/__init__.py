"""The command line: ``qec COMMAND key=value ...``.

In: words.  Out: an exit status.  ``commands`` is the table of all commands, ``config`` reads conf/
with the overrides, ``keys`` checks them before anything heavy is imported.
"""
