"""The ways in for requests and commands: what comes from outside becomes one checked form."""
