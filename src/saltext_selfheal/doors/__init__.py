"""The doors: the ways in for requests and commands. What comes from outside gets one checked form."""
