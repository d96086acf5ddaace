"""The real-time decoder benchmark: a producer of detection events, decoder processes, a report.

In: events and the period of the rounds.  Out: latency, backlog, the shortest period kept up with.
Start at ``command`` and ``run``:

source of events -> producer (one round per period) -> shared memory -> workers (windows) -> report
"""
