"""What the notebooks show and check, a module for each: their figures, instruments and the checks of their exercises.

A notebook holds what a learner reads and writes; here is what they only look at.
"""
