include:
  - rethinkdb.package.repo
  - rethinkdb.package.install
