"""Run the code blocks of a Markdown document, like a reader who types them.

    python  tests/documents.py DOCUMENT   runs the Python blocks in order, in one namespace

A block whose first line is a comment with a file name (`# rules.toml`) is written to that file. It runs only if another
block calls it. `test_docs.py` checks the blocks of other languages.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

_FILE_NAME = re.compile(r"# ([\w-]+\.\w+)$")


class Block(NamedTuple):
    """One fenced block: its language, its first line number, its text, and the file name in its first line, if any."""

    language: str
    line: int
    text: str
    file: str | None


def blocks(document: Path) -> list[Block]:
    """All fenced blocks of a document, in order."""
    found = []
    for token in MarkdownIt().parse(document.read_text()):
        if token.type == "fence" and token.map is not None:
            first = token.content.partition("\n")[0]
            named = _FILE_NAME.fullmatch(first.rstrip())
            language = token.info.strip().partition(" ")[0]
            found.append(Block(language, token.map[0] + 1, token.content, named[1] if named else None))
    return found


def run(document: Path, replaced: dict[str, str]) -> None:
    """Run the Python blocks of a document in one namespace. Tracebacks show the lines of the document."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(document):
        text = block.text
        for written, real in replaced.items():
            text = text.replace(written, real)
        if block.file is not None:
            Path(block.file).write_text(text)
        elif block.language == "python":
            tree = ast.parse(text, str(document), type_comments=False)
            ast.increment_lineno(tree, block.line)
            exec(compile(tree, str(document), "exec"), namespace)


if __name__ == "__main__":
    run(Path(sys.argv[1]), dict(pair.split("=", 1) for pair in sys.argv[2:]))
