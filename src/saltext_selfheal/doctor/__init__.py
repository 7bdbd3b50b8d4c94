"""What may be wrong around the healer: settings, reactor, ledger, permissions. It changes nothing."""
