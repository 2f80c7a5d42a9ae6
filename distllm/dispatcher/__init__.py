"""The coordinator: loops that claim, send, settle, probe and watch until the work is done.

Limits: one process on one SQLite file. A reading is worked by one seat at a time, so a single paper keeps a
single seat busy.
"""
