"""Links that leave the folder are for those who read it in the repository; the site has none."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_DOCS = Path(__file__).resolve().parents[1]
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Such a link becomes the path it names. Raises ValueError for one that does not exist."""

    def told(found: re.Match[str]) -> str:
        path = (_DOCS / Path(page.file.src_uri).parent / ".." / found[2]).resolve()
        if not path.exists():
            raise ValueError(f"{page.file.src_uri} links {found[2]}, which does not exist")
        text: str = found[1]
        return text if found[2] in text else f"{text} (`{found[2]}`)"

    return _OUTSIDE.sub(told, markdown)
