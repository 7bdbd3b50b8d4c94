# One configuration file and one unit per instance.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}

include:
  - rethinkdb.package.install

rethinkdb-config-folder:
  file.directory:
    - name: {{ rethinkdb.paths.config | yaml_dquote }}
    - makedirs: true
    {%- if rethinkdb.package.managed %}
    - require:
      - pkg: rethinkdb-package
    {%- endif %}

{%- for name, instance in rethinkdb.instances.items() %}

# The file may hold the admin's first password: root writes it, the server reads it, and no difference is shown.
rethinkdb-{{ name }}-config:
  file.managed:
    - name: {{ instance.file | yaml_dquote }}
    - source: salt://rethinkdb/files/rethinkdb.conf.jinja
    - template: jinja
    - context:
        instance: {{ name | yaml_dquote }}
    - user: {{ rethinkdb.owner | yaml_dquote }}
    - group: {{ rethinkdb.group | yaml_dquote }}
    - mode: '0640'
    - show_changes: false
    - require:
      - file: rethinkdb-config-folder

{%- if rethinkdb.native_unit %}

# Salt's module for systemd loads a unit anew that has changed on disk, before it works on it.
rethinkdb-{{ name }}-unit:
  file.managed:
    - name: {{ instance.unit_file | yaml_dquote }}
    - source: salt://rethinkdb/files/rethinkdb.service.jinja
    - template: jinja
    - context:
        instance: {{ name | yaml_dquote }}
    - user: {{ rethinkdb.owner | yaml_dquote }}
    - mode: '0644'
    - makedirs: true
    - require:
      - file: rethinkdb-config-folder
{%- endif %}
{%- endfor %}
