"""Answers to take away: one module a format, each a stream of bytes that is never held whole.

CSV is made for spreadsheets and cannot tell an empty answer from none; JSON Lines and Parquet keep everything as
it is stored. Markdown and HTML are for people: control characters are left out of them.
"""
