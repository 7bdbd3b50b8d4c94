"""
What stands in the logs of a site that a reader of a failure wants: few lines, the latest, in the order of time.

Nothing here knows a site; it reads text.
"""

import datetime
import os
import re

# As Salt writes its logs, and as supervisord does:
# [2026-11-26 16:05:18,123][saltext_selfheal.loop.healer:210 ][WARNING ][Engine(…)][4711] text
# 2026-11-26 16:05:18,123 WARN exited: rethinkdb (exit status 1; not expected)
_AT = r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})"
_SALT = re.compile(
    rf"\[?{_AT}\]?\s*\[(?P<who>[^\]:\s]*)[^\]]*\]\[(?P<level>\w+)\s*\](?:\[[^\]]*\])*\s*(?P<text>.*)"
)
_SUPERVISORD = re.compile(rf"{_AT} (?P<level>[A-Z]{{4}}) (?P<text>(?P<who>).*)")
_GRAVE = ("WARNING", "ERROR", "CRITICAL", "WARN", "ERRO", "CRIT")
_LAST_OF_A_PROGRAM = 3
LONGEST = 220
TAIL_BYTES = 256 * 1024


def tail(path, size=TAIL_BYTES):
    """The end of a file as text; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def relevant(texts, since=None, most=30):
    """
    texts
        Name of a log → its text.
    since
        Seconds since the epoch; older lines of Salt's logs are left out.

    What has no time, as what a database server said before it died, is of the end: the last lines of each.
    """
    stamped, plain = [], []
    for name, text in texts.items():
        lines = text.splitlines()
        records = _records(lines)
        if not records:
            plain += [_line(name, line) for line in lines if line.strip()][-_LAST_OF_A_PROGRAM:]
        for found, more in records:
            at, who, level = found["at"], found["who"], found["level"]
            if since is not None and _seconds(at) < since - 0.001:
                continue
            if level in _GRAVE or "selfheal" in who:
                told = " … ".join([f"{at[11:]} {level} {found['text']}", *more[-1:]])
                stamped.append((at, _line(name, told)))
    plain = plain[-most // 3 :]
    stamped.sort(key=lambda one: one[0])
    return [line for _, line in stamped][-(most - len(plain)) :] + plain


def _records(lines):
    """Each line with a time, and the lines after it that are not indented: the error below a traceback."""
    records = []
    for line in lines:
        if found := _SALT.match(line) or _SUPERVISORD.match(line):
            records.append((found, []))
        elif records and line.strip() and not line[0].isspace():
            records[-1][1].append(line.strip())
    return records


def _seconds(at):
    return datetime.datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp()


def _line(name, line):
    told = f"{name}: {line.strip()}"
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 1]}…"
