include:
  - rethinkdb.config.files
  - rethinkdb.config.data
