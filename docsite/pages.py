"""A hook of mkdocs: adds the pages that lie outside docs/, the generated reference, and each file that a page links to.

The pages are written for a reader of the repository, where ../deploy/run is a file; on the site that link leads to its text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docsite import reference

PROJECT = Path(__file__).parents[1]
# Where on the site a page lies that is not in docs/.
PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
# Where on the site a file lies that was added, and where in the repository.
added: dict[str, str] = {}
LANGUAGES = {".mjs": "js", ".mts": "ts", ".acl": "text", ".example": "ini", ".txt": "text"}
# Not in a block of code: those begin with ``` or are indented.
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what docs/ lacks."""
    files.append(File.generated(config, "site.css", abs_src_path=str(Path(__file__).with_name("site.css"))))
    for name, content in reference.pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    waiting = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    for file in files.documentation_pages():
        waiting |= outside(_repository_path(file.src_uri), file.content_string)
    while waiting:
        path = waiting.pop()
        added[place(path)] = path
        text = (PROJECT / path).read_text()
        if path.endswith(".md"):
            waiting |= outside(path, text) - set(added.values())
        else:
            text = f"# {path}\n\n````{LANGUAGES.get(Path(path).suffix, Path(path).suffix[1:])}\n{text}\n````\n"
        files.append(File.generated(config, place(path), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point the links at the pages of the site."""
    path = _repository_path(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        target = _target(path, match[2])
        here = posixpath.dirname(page.file.src_uri)
        return match[1] + (posixpath.relpath(place(target), here or ".") if target else match[2]) + match[3]

    return LINK.sub(link, markdown)


def place(path: str) -> str:
    """Return where on the site a file of the repository lies."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    # A name with a dot in front would be left out.
    return PLACES.get(path) or f"files/{path.removesuffix('.md').lstrip('.')}.md"


def outside(path: str, text: str) -> set[str]:
    """Return the files outside docs/ that this one links to."""
    targets = {_target(path, match[2]) for match in LINK.finditer(text)}
    return {target for target in targets if target and not target.startswith("docs/")}


def _target(path: str, link: str) -> str | None:
    """Return the file of the repository that a link in another leads to; None: there is none."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if (PROJECT / target).is_file() else None


def _repository_path(place: str) -> str:
    return added.get(place, f"docs/{place}")
