include:
  - rethinkdb.service.packaged
  - rethinkdb.service.running
