# The data directory of each instance. It is made once. A note beside the configuration says that it was, so that no
# highstate puts a new, empty server where data should be: a disk that is not mounted looks like a first start.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}

include:
  - rethinkdb.config.files

{%- for name, instance in rethinkdb.instances.items() %}
{%- set metadata = instance.directory ~ '/metadata' %}

rethinkdb-{{ name }}-data-missing:
  test.fail_without_changes:
    - name: {{ ('There are no data of the instance ' ~ name ~ ' in ' ~ instance.directory ~ ', and once there were. Is its '
               ~ 'disk mounted? If a new, empty server is wanted, delete ' ~ instance.created) | yaml_dquote }}
    - onlyif:
      - fun: file.file_exists
        path: {{ instance.created | yaml_dquote }}
    - unless:
      - fun: file.file_exists
        path: {{ metadata | yaml_dquote }}

rethinkdb-{{ name }}-directory:
  file.directory:
    - name: {{ instance.directory | yaml_dquote }}
    - user: {{ rethinkdb.user | yaml_dquote }}
    - group: {{ rethinkdb.group | yaml_dquote }}
    - mode: '0750'
    - makedirs: true
    - require:
      - test: rethinkdb-{{ name }}-data-missing
      - file: rethinkdb-{{ name }}-config

# `create` reads the first password from the file. It refuses a folder that has anything in it.
rethinkdb-{{ name }}-data:
  cmd.run:
    - name: >-
        {{ rethinkdb.paths.binary }} create --config-file {{ instance.file }}
        --runuser {{ rethinkdb.user }} --rungroup {{ rethinkdb.group }}
    - creates: {{ metadata | yaml_dquote }}
    - require:
      - file: rethinkdb-{{ name }}-directory

rethinkdb-{{ name }}-created:
  file.managed:
    - name: {{ instance.created | yaml_dquote }}
    - contents: {{ ('The data of the instance ' ~ name ~ ' were made, or found, in ' ~ instance.directory ~ '.') | yaml_dquote }}
    - replace: false
    - user: {{ rethinkdb.owner | yaml_dquote }}
    - mode: '0644'
    - require:
      - cmd: rethinkdb-{{ name }}-data
{%- endfor %}
