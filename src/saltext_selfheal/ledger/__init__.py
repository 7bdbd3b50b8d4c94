"""The ledger: one SQLite file with all that is remembered, and the ways to ask and read there. No Salt."""
