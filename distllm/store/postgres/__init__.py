"""The store on PostgreSQL. Nothing of it is imported by those who use a file (see `store.engines`)."""
