"""The pages at the root of the repository lead to files, and to headings, that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: A page that is named without a link.
_NAMED = re.compile(r"`([\w./-]+\.(?:md|conf))`")


def prose(path):
    return _BLOCK.sub("", path.read_text(encoding="utf-8"))


def anchors(path):
    """The headings of a page, as GitHub and MyST name them in a link."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def links(page):
    return sorted(set(_LINK.findall(prose(ROOT / page))))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page):
    found = links(page)
    assert found
    for link in found:
        name, _, anchor = link.partition("#")
        assert "://" not in link, f"{link}: another place, which may not be there tomorrow"
        target = ROOT / name if name else ROOT / page
        assert target.is_file(), f"{page} leads to {link}"
        assert not anchor or anchor in anchors(target), f"{page} leads to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_pages_that_are_named_exist(page):
    for name in _NAMED.findall(prose(ROOT / page)):
        assert (ROOT / name).is_file(), f"{page} names {name}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_no_address_is_invented(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "@" not in text
    assert "://" not in text
