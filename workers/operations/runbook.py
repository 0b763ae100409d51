"""The runbook as a page of the gateway, from docs/runbook.md, which the package holds."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from workers.operations.page import document

TEXT = Path(__file__).with_name("runbook.md")
# The gateway has no other page of docs/: a link to one becomes its name.
ELSEWHERE = re.compile(r"\[[^]]+]\((?!https://)([^)#]+)[^)]*\)")


@cache
def runbook() -> str:
    """Return the page; each alert's section has the alert's name, in lower case, as its id."""
    markdown = MarkdownIt("commonmark", {"html": False})
    tokens = markdown.parse(ELSEWHERE.sub(r"`docs/\1`", TEXT.read_text()))
    for heading, words in pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", words.content.lower())
    return document("Runbook", f'<main class="text">{markdown.renderer.render(tokens, markdown.options, {})}</main>')
