"""Self-healing for databases run with Salt."""
