"""Which reading goes to which seat: decided from plain values, without input, output or a clock of its own.

Limits: the pace of a worker is that of one seat, as its answers told it; a paper that a server reads again although it
was sent to the same seat is not foreseen.
"""
