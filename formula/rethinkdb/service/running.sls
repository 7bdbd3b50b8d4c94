# Starts what does not run. There is no `watch`, on purpose: a serving database is not restarted because a file has
# changed. `salt-run selfheal.trigger` restarts one node after the other, if the others can spare it.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}
{%- set running = [] %}
{%- for name, instance in rethinkdb.instances.items() if instance.running %}{% do running.append(name) %}{% endfor %}
{%- if running %}

include:
  - rethinkdb.config
  - rethinkdb.service.packaged

{%- for service, names in
      ({'rethinkdb': running} if not rethinkdb.native_unit else {}).items() %}

# The init script starts all instances.
rethinkdb-service:
  service.running:
    - name: {{ service }}
    - enable: true
    - require:
      {%- for name in names %}
      - file: rethinkdb-{{ name }}-config
      - file: rethinkdb-{{ name }}-created
      {%- endfor %}
{%- endfor %}

{%- for name in running %}
{%- set instance = rethinkdb.instances[name] %}
{%- if rethinkdb.native_unit %}

rethinkdb-{{ name }}-service:
  service.running:
    - name: {{ instance.service | yaml_dquote }}
    - enable: true
    - require:
      - file: rethinkdb-{{ name }}-config
      - file: rethinkdb-{{ name }}-unit
      - file: rethinkdb-{{ name }}-created
      - service: rethinkdb-packaged
{%- endif %}

{%- if rethinkdb.node_alive %}

# `service.running` sees a process. This asks the server itself, and starts or restarts one that does not answer.
rethinkdb-{{ name }}-alive:
  selfheal.node_alive:
    - service: {{ instance.service | yaml_dquote }}
    - address: {{ instance.address | yaml_dquote }}
    - timeout: {{ rethinkdb.node_alive_timeout }}
    {%- if rethinkdb.node_alive_user is not none %}
    - user: {{ rethinkdb.node_alive_user | yaml_dquote }}
    {%- endif %}
    - require:
      - service: {{ 'rethinkdb-' ~ name ~ '-service' if rethinkdb.native_unit else 'rethinkdb-service' }}
{%- endif %}
{%- endfor %}
{%- else %}
{}
{%- endif %}
