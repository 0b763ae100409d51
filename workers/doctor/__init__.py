"""The doctor: asks every dependency whether it is as the workers need it, and says in one line each what to mend.

`report` runs the checks beside each other, each with a deadline; a module of this package holds the checks of one dependency.
"""
