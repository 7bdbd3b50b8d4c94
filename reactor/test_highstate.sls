#!jinja|json
{# selfheal/remediate/test_highstate -> state.highstate test=True (changes nothing) on the minions that the healer's ledger names for this JID.
    Any minion can forge the event, so its JID is all that is taken from it. Who asks claims the firing: a second
    event with this JID, and one without a live attempt of this action, renders to nothing. #}
{%- set attempt = salt['selfheal.attempt'](data['jid'], 'test_highstate') -%}
{%- if attempt -%}
{"selfheal_test_highstate": {"local.state.highstate": [
  {"tgt": {{ attempt.minions | tojson }}},
  {"tgt_type": "list"},
  {"jid": {{ attempt.jid | tojson }}},
  {"arg": []},
  {"kwarg": {"test": true}}
]}}
{%- else -%}
{}
{%- endif -%}
