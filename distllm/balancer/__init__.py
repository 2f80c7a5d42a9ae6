"""Which reading goes to which seat: decided from plain values, without input, output or a clock of its own.

Limits: placement knows each worker's window and weight, not yet the time that a paper will take it.
"""
