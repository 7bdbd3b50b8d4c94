# The server's package. `package: false` leaves it out, for machines whose image has it.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}
{%- if rethinkdb.package.managed %}

include:
  - rethinkdb.package.repo
  - rethinkdb.service.packaged

rethinkdb-package:
  pkg.installed:
    - name: {{ rethinkdb.package.name | yaml_dquote }}
    {%- if rethinkdb.package.version is not none %}
    - version: {{ rethinkdb.package.version | yaml_dquote }}
    {%- endif %}
    {%- if rethinkdb.repo.managed or rethinkdb.native_unit %}
    - require:
      {%- if rethinkdb.repo.managed %}
      - pkgrepo: rethinkdb-repo
      {%- endif %}
      {%- if rethinkdb.native_unit %}
      # The package starts every instance that it finds. It must not, where systemd's own units do.
      - service: rethinkdb-packaged
      {%- endif %}
    {%- endif %}
{%- else %}
{}
{%- endif %}
