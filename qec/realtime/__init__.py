"""The real-time decoder benchmark: a producer of detection events, decoder processes, a report.

source of events -> producer (one round per period) -> shared memory -> workers (windows) -> report
"""
