"""The rules that keep healing safe, checked against the core in virtual time."""
