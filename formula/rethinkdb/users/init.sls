# The account that the healer logs in with, and its rights. Off by default: read docs/formula.md first.
#
# Salt has no states for RethinkDB's accounts. So a small program does it, with RethinkDB's own driver for Python. Passwords
# reach it by a file that only root can read: they are on no command line, and in no job.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}
{%- set account = rethinkdb.account %}
{%- if not account.managed %}
{}
{%- else %}
{%- set folder = rethinkdb.paths.account %}
{%- set program = account.python ~ ' -I ' ~ folder ~ '/account.py' %}
{%- set service = 'rethinkdb-' ~ account.instance ~ '-service' if rethinkdb.native_unit else 'rethinkdb-service' %}

include:
  - rethinkdb.service

rethinkdb-account-folder:
  file.directory:
    - name: {{ folder | yaml_dquote }}
    - user: {{ rethinkdb.owner | yaml_dquote }}
    - mode: '0700'
    - makedirs: true

rethinkdb-account-program:
  file.managed:
    - name: {{ (folder ~ '/account.py') | yaml_dquote }}
    - source: salt://rethinkdb/files/account.py
    - user: {{ rethinkdb.owner | yaml_dquote }}
    - mode: '0600'
    - require:
      - file: rethinkdb-account-folder

rethinkdb-account-wanted:
  file.managed:
    - name: {{ (folder ~ '/wanted.json') | yaml_dquote }}
    - source: salt://rethinkdb/files/account.json.jinja
    - template: jinja
    - user: {{ rethinkdb.owner | yaml_dquote }}
    - mode: '0600'
    - show_changes: false
    - require:
      - file: rethinkdb-account-folder

# `unless` only looks, so that test mode tells the truth.
rethinkdb-account:
  cmd.run:
    - name: {{ (program ~ ' ' ~ folder ~ '/wanted.json') | yaml_dquote }}
    - unless: {{ (program ~ ' --check ' ~ folder ~ '/wanted.json') | yaml_dquote }}
    - require:
      - file: rethinkdb-account-program
      - file: rethinkdb-account-wanted
      {%- if rethinkdb.instances[account.instance].running %}
      - service: {{ service }}
      {%- endif %}
{%- endif %}
