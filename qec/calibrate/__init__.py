"""`qec calibrate`: which stages of a cascade pay, and how far confidence can be believed."""
