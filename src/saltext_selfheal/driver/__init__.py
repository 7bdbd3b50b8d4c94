"""RethinkDB's protocol and addresses, for the probe and for applications. No Salt, no pydantic."""
