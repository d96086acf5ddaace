"""`qec calibrate`: which stages of a cascade pay, and how far confidence can be believed.

In: an error model, or recorded events.  Out: tables, calibration.json, two figures.  Start at
``command``.
"""
