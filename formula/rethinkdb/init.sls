# A RethinkDB server as Salt keeps it: package, configuration, service, and, if the pillar wants it, the healer's account.

# Reads the pillar first of all: a mistake there is told once, and not by every file below.
{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}

include:
  - rethinkdb.package
  - rethinkdb.config
  - rethinkdb.service
  - rethinkdb.users
