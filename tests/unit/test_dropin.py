"""The printed drop-in loads back to what was asked for, whatever the names are."""

import re
from pathlib import Path
from string import printable

import pytest
import salt.utils.yaml
import yaml as plain_yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from saltext_selfheal import config
from saltext_selfheal.console.dropin import quoted, render
from saltext_selfheal.doors.arguments import BadRequest
from saltext_selfheal.driver.address import parsed
from saltext_selfheal.healing.model import Action, Mode

#: Texts that YAML reads as something else if they are not in quotes.
STRANGE = [
    "on", "no", "y", "off", "null", "~", "101", "0777", "0x1f", "1:30", "1e3", "1.5", ".inf", "101444_263102810263", "a:b",
    "2026-11-27", "'", '"', "#x", "&a", "!x", "@x", "`x`", "%x", "|", ">", "=", "<<", "-", "---", "x'y\"z", "a#b", "{x}", "}{0}",
    "ü", "\U0001f600", "{cluster}", "%(x)s", "true", "None", "0o17", "0b1", "1_0", "+1", "-1", "1.", "e:", ":e",
]  # fmt: skip


def taken(key, value):
    """Whether the settings take a text in this place."""
    settings = {"clusters": {"c": {"minions": "*", "nodes": {"n": "h"}}}}
    cluster = settings["clusters"]["c"]
    if key == "cluster":
        settings["clusters"] = {value: cluster}
    elif key == "node":
        cluster["nodes"] = {value: "h"}
    elif key == "address":
        cluster["nodes"] = {"n": value}
    else:
        cluster[key] = value
    try:
        config.load({"engines": [{"selfheal": settings}]})
    except config.ConfigError:
        return False
    return True


def texts(key):
    anything = st.sampled_from(STRANGE) | st.text(printable, min_size=1, max_size=20)
    anything |= st.text(min_size=1, max_size=20)
    return anything.filter(lambda text: taken(key, text))


NODES = st.dictionaries(texts("node"), texts("address"), min_size=1, max_size=4)
MODES = st.sampled_from(Mode).map(lambda mode: mode.value)


@settings(max_examples=150, deadline=None)
@given(texts("cluster"), NODES, MODES, texts("user"))
@example("on", {"no": "db'x.example", "101": "db1"}, "off", "a: b")
@example("0777", {"101444_263102810263": "no", "a:b": "[::1]:1"}, "shadow", "'\"\\")
def test_what_is_printed_loads_back_to_the_same_values(cluster, nodes, mode, user):
    if len({parsed(address) for address in nodes.values()}) < len(nodes):
        nodes = dict(list(nodes.items())[:1])
    printed = render(cluster, "*", nodes, mode=mode, user=user)
    assert printed.isascii()
    for read in (salt.utils.yaml.safe_load(printed), plain_yaml.safe_load(printed)):
        made = config.load(read)
        (name,) = made.clusters
        assert (name, made.mode) == (cluster, Mode(mode))
        found = made.clusters[name]
        assert (found.minions, found.user) == ("*", user)
        assert found.nodes == {node: parsed(address) for node, address in nodes.items()}
        assert list(found.nodes) == list(nodes)


@settings(max_examples=50, deadline=None)
@given(st.text(printable.strip(), max_size=4).map(lambda text: f"*{text}*"), st.sampled_from("ab"))
@example("'*", "a")
@example("[!a]*", "b")
@example("*#*", "a")
def test_so_does_the_allow_list(pattern, end):
    node = re.sub(r"[,*?\[\]/\\\s]", "", f"n{pattern}{end}")
    try:
        printed = render("runbook", pattern, {node: "10.0.0.1"})
    except config.ConfigError:
        return  # the node is not inside
    made = config.load(salt.utils.yaml.safe_load(printed))
    assert made.clusters["runbook"].minions == pattern


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_in_quotes_is_that_text(text):
    for read in (salt.utils.yaml.safe_load, plain_yaml.safe_load):
        assert read(quoted(text)) == text
        assert read(f"a: [{quoted(text)}]") == {"a": [text]}
        assert len(text) > 90 or read(f"{quoted(text)}: 1") == {text: 1}


@pytest.mark.parametrize("text", STRANGE)
def test_a_strange_name_is_a_name(text):
    assert salt.utils.yaml.safe_load(f"{quoted(text)}: {quoted(text)}") == {text: text}


@pytest.mark.parametrize("wrong", [101, True, None, ["a"], 1.5])
def test_a_cluster_that_yaml_has_read_otherwise_is_not_guessed(wrong):
    with pytest.raises(BadRequest, match=r"^cluster: found .*; allowed: a name, quoted twice"):
        render(wrong, "*", {"db1": "10.0.0.1"})


@pytest.mark.parametrize(
    ("given", "at"),
    [({"mode": "on"}, "mode"), ({"mode": True}, "mode"), ({"user": "jürgen"}, "clusters.runbook.user"),
     ({"user": 101}, "clusters.runbook.user"), ({"user": ""}, "clusters.runbook.user")],
)  # fmt: skip
def test_a_drop_in_that_cannot_be_used_is_not_printed(given, at):
    with pytest.raises(config.ConfigError, match=rf"engines\.selfheal\.{at}: found"):
        render("runbook", "*", {"db1": "10.0.0.1"}, **given)


@pytest.mark.parametrize(
    ("user", "right"),
    [
        ("selfheal", """.grant("selfheal", {read: true, write: true})"""),
        ('a"b', """.grant("a\\"b", {read: true, write: true})"""),
        ("admin", "the user admin has all rights"),
    ],
)
def test_the_canary_is_printed_as_a_comment_with_the_rights_that_it_needs(user, right):
    printed = render("runbook", "*", {"db1": "h"}, user=user)
    assert f"{right}" in printed
    assert config.load(salt.utils.yaml.safe_load(printed)).clusters["runbook"].canary is None
    made = config.load(salt.utils.yaml.safe_load(printed.replace("# canary:", "canary:")))
    canary = made.clusters["runbook"].canary
    assert (canary.read, canary.write) == ("selfheal.canary", "selfheal.canary")
    assert (canary.every, canary.timeout) == (10.0, 5.0)
    assert "tableCreate('canary', {replicas: 1})" in printed


def test_the_drop_in_only_watches_unless_it_is_said_otherwise():
    assert "      mode: shadow " in render("runbook", "*")
    assert (
        config.load(salt.utils.yaml.safe_load(render("runbook", "*", mode=False))).mode is Mode.OFF
    )
    assert (
        config.load(salt.utils.yaml.safe_load(render("runbook", "*", mode="auto", user="on")))
        .clusters["runbook"]
        .user
        == "on"
    )


def test_the_drop_in_of_the_docs_maps_every_action():
    docs = Path(__file__).parents[2] / "docs" / "reference" / "selfheal.conf"
    entries = plain_yaml.safe_load(docs.read_text(encoding="utf-8"))["reactor"]
    mapped = {tag.removeprefix("selfheal/remediate/") for entry in entries for tag in entry}
    assert {action.value for action in Action} <= mapped
