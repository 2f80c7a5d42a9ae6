"""The database: the only place with SQL.

`tables` is the schema, `migrations/` at the top of the project brings a file to it. `sqlite` owns the one
writer and the readers; `submissions`, `leases`, `results` and `fleet` are functions of one transaction
each, run whole on the writer; `reads` holds the read-only statements.

Limits: one host (WAL needs shared memory, so network file systems are out), and one coordinator at a time
on a file.
"""
