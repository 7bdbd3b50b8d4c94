"""Names that Salt's command line reads as something else: what it makes of them, and what we make of that."""

import pytest
import salt.utils.args
import salt.utils.yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from saltext_selfheal.doors import names
from saltext_selfheal.doors.arguments import BadRequest

ODD = [
    "201", "0777", "no", "No", "NO", "off", "on", "yes", "true", "null", "~", "None", "1.5", "1.50", "0x1F", "0b11", "+5", "-3",
    "1:30", "20:30:30", "1_000", "1.", ".5", ".inf", "-.inf", ".nan", "1e3", "1.0e+3", "0", "00", "08", "0o7", "1:90", "1:30.5",
    "101444_263102810263", "y", "n", "2026", "2026-01-01", "db1", "a: b", "_1", "0_7", "-0", "+.5", "0x", "Null", "nULL",
]  # fmt: skip


def same(one, other):
    return type(one) is type(other) and repr(one) == repr(other)


@settings(max_examples=500, deadline=None)
@given(
    name=st.text("0123456789_.:+-xXbBeEoOaAfFnNlLyYsStTrRuUiI~", min_size=1, max_size=8)
    | st.sampled_from(ODD)
)
@example("0_7").via("found by hand")
def test_a_word_is_read_as_yaml_reads_it(name):
    try:
        read = salt.utils.yaml.safe_load(name)
    except Exception:  # pylint: disable=broad-except
        read = name
    read = None if name == "None" else read  # the command line's own word
    if isinstance(read, (str, int, float, type(None))):
        assert same(names.as_read(name), read)


@pytest.mark.parametrize("name", ODD)
def test_what_the_command_line_makes_of_the_only_such_name_is_turned_back(name):
    (given,), _ = salt.utils.args.parse_input([name], condition=False)
    if given is None:
        with pytest.raises(BadRequest, match="found None, which is also what the name"):
            names.turned_back("cluster", given, [name, "db1x"])
    else:
        assert names.turned_back("cluster", given, [name, "db1x"]) == name


@pytest.mark.parametrize(
    ("found", "known"),
    [
        (511, ["511", "0777"]), (777, ["777", "0777"]), (1.5, ["1.5", "1.50"]), (False, ["no", "off"]), (255, ["0xFF", "255"]), (255, ["255", "0377"]), (90, ["1:30", "90"]),
    ],
)  # fmt: skip
def test_what_two_names_are_read_as_is_no_name(found, known):
    with pytest.raises(BadRequest, match=r"nodes: found .* the names .* in two pairs of quotes"):
        names.turned_back("nodes", found, known)


def test_a_number_is_no_truth_value_and_no_other_number():
    for found, known in (
        (1, "yes"),
        (True, "1"),
        (1.0, "1"),
        (0, "no"),
        (2026, "2025"),
        (None, "db1"),
    ):
        assert names.turned_back("cluster", found, [known]) is found


def test_each_of_a_list_is_turned_back():
    assert names.turned_back("nodes", [201, "db1", False], ["201", "no", "db1"]) == [
        "201",
        "db1",
        "no",
    ]
