# Takes away what the formula has brought. Data directories stay: no state of this formula deletes data.

include:
  - rethinkdb.service.clean
  - rethinkdb.users.clean
  - rethinkdb.config.clean
  - rethinkdb.package.clean
