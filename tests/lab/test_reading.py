"""What a failed integration test shows of the site's logs: what bears on it, the latest, and not much."""

import datetime
import time

from tests.lab.reading import LONGEST, relevant, tail

HEALER = "saltext_selfheal.loop.healer"


def salt(second, level, text, who="salt.minion"):
    at = f"2026-11-26 16:05:{second:02},123"
    return f"[{at}][{who:<50}:210 ][{level:<8}][Engine(selfheal)][4711] {text}"


def test_what_is_grave_and_what_the_healer_says_in_the_order_of_time():
    told = relevant(
        {
            "master": "\n".join(
                [
                    salt(9, "INFO", "one publish of a thousand"),
                    salt(3, "INFO", "db1 is dead", HEALER),
                    salt(5, "ERROR", "it fails"),
                    "Traceback (most recent call last):",
                    "  File somewhere",
                    "ValueError: the cause",
                    salt(6, "DEBUG", "no"),
                ]
            ),
            "supervisord": "2026-11-26 16:05:04,000 WARN exited: db1\n2026-11-26 16:05:05,000 INFO no",
            "db1.err": "\n\nfirst\nsecond\nthird\nAddress already in use\n",
            "empty": "",
        }
    )
    assert told == [
        "master: 16:05:03,123 INFO db1 is dead",
        "supervisord: 16:05:04,000 WARN exited: db1",
        "master: 16:05:05,123 ERROR it fails … ValueError: the cause",
        "db1.err: second",
        "db1.err: third",
        "db1.err: Address already in use",
    ]


def test_no_more_than_was_asked_for_and_no_line_without_end():
    many = {f"log{n}": "\n".join(salt(s, "ERROR", "x" * 999) for s in range(60)) for n in range(9)}
    programs = {f"db{n}.err": "why\n" * 9 for n in range(9)}
    told = relevant({**many, **programs}, most=30)
    assert len(told) == 30
    assert max(map(len, told)) <= LONGEST
    # Ten of the databases, and the last of the others.
    assert [line.partition(":")[0].removesuffix(".err")[:-1] for line in told] == ["log"] * 20 + [
        "db"
    ] * 10
    assert all("16:05:5" in line for line in told[:20])


def test_nothing_from_before_the_test_began():
    begun = datetime.datetime(2026, 11, 26, 16, 5, 30).timestamp()
    text = "\n".join([salt(20, "ERROR", "before"), salt(40, "ERROR", "after")])
    (line,) = relevant({"master": text}, since=begun)
    assert line.endswith("after")
    assert relevant({"master": text}, since=time.time() + 1e9) == []


def test_a_log_that_is_gone_or_no_text_is_no_error(tmp_path):
    assert tail(tmp_path / "none") == ""
    (tmp_path / "log").write_bytes(b"a" * 99 + b"\xff\n" + salt(1, "ERROR", "b").encode())
    assert len(relevant({"log": tail(tmp_path / "log")})) == 1
