# Package and repository go. What stays: data, and the account `rethinkdb` of the operating system.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}

include:
  - rethinkdb.service.clean

{%- if rethinkdb.package.managed %}

rethinkdb-package-removed:
  pkg.removed:
    - name: {{ rethinkdb.package.name | yaml_dquote }}
    - require:
      - sls: rethinkdb.service.clean
{%- endif %}
{%- if rethinkdb.repo.managed and grains.os_family == 'Debian' %}

rethinkdb-repo-removed:
  file.absent:
    - names:
      - {{ rethinkdb.repo.file | yaml_dquote }}
      - {{ rethinkdb.repo.key_path | yaml_dquote }}
{%- elif rethinkdb.repo.managed %}

rethinkdb-repo-removed:
  pkgrepo.absent:
    - name: rethinkdb
{%- endif %}
