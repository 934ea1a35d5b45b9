"""Faults for a Python file, from its syntax tree: what people get wrong, and what the type checkers do not see."""

from __future__ import annotations

import ast
import re
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import in_lua
from fault import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPARED: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: (r"is", ("is not",)),
    ast.IsNot: (r"is\s+not", ("is",)),
    ast.In: (r"in", ("not in",)),
    ast.NotIn: (r"not\s+in", ("in",)),
}
_CALCULATED: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.Mod: ("%", "//"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: (r"\|", "&"),
}
_IS_CODE = re.compile(r"^ *(el)?if ", re.MULTILINE).search
_REMOVED = (ast.Assign, ast.AugAssign, ast.Delete, ast.Expr, ast.Raise, ast.Continue, ast.Break)


class _Planter(ast.NodeVisitor):
    def __init__(self, file: str, source: str) -> None:
        self.file = file
        self.source = source
        self.found: list[Fault] = []
        self._lines = [0, *accumulate(len(line) for line in source.splitlines(keepends=True))]
        # Columns of the tree are in bytes.
        self._texts = source.splitlines(keepends=True)

    def at(self, line: int, column: int) -> int:
        return self._lines[line - 1] + len(self._texts[line - 1].encode()[:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno or 0, node.end_col_offset or 0)

    def plant(self, start: int, end: int, text: str) -> None:
        self.found.append(Fault(self.file, start, end, text))

    def between(self, left: ast.expr, right: ast.expr, pattern: str, texts: tuple[str, ...]) -> None:
        """Replace the operator between two expressions, which may stand in parentheses."""
        start, end = self.span(left)[1], self.span(right)[0]
        operator = re.search(
            rf"(?<![\w]){pattern}(?![\w])" if pattern[0].isalpha() else pattern, self.source[start:end]
        )
        if operator:
            for text in texts:
                self.plant(start + operator.start(), start + operator.end(), text)

    # What is no part of the behaviour.

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.dump(node.test):
            start, end = self.span(node.test)
            self.plant(start, end, f"not ({self.source[start:end]})")
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None and "TypeAlias" not in ast.dump(node.annotation):
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.name == "__repr__" or any("overload" in ast.dump(each) for each in node.decorator_list):
            return
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    # Faults.

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, _REMOVED):
            self.remove(node)
        super().visit(node)

    def remove(self, node: ast.Assign | ast.AugAssign | ast.Delete | ast.Expr | ast.Raise | ast.stmt) -> None:
        """Without an assignment to a new name there would be a NameError, which any test sees."""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom):
            return
        if isinstance(node, ast.Assign) and all(isinstance(each, ast.Name) for each in node.targets):
            return
        self.plant(*self.span(node), "pass")

    def visit_Compare(self, node: ast.Compare) -> None:
        for (left, right), operator in zip(pairwise([node.left, *node.comparators]), node.ops, strict=True):
            self.between(left, right, *_COMPARED[type(operator)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        name, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            self.between(left, right, name, (other,))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        pattern, other = _CALCULATED.get(type(node.op), ("", ""))
        if pattern:
            self.between(node.left, node.right, pattern, (other,))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.plant(self.span(node)[0], self.span(node.operand)[0], "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        start, end = self.span(node)
        if isinstance(node.value, bool):
            self.plant(start, end, str(not node.value))
        elif isinstance(node.value, int):
            self.plant(start, end, f"{node.value + 1}")
            self.plant(start, end, f"({node.value - 1})")
        elif isinstance(node.value, str) and _IS_CODE(node.value):
            # It is compiled when the program runs.
            for fault in in_lua.faults(self.file, self.source[start + 3 : end - 3], start + 3):
                self.found.append(fault._replace(text=fault.text.replace("~=", "!=")))

    def visit_keyword(self, node: ast.keyword) -> None:
        # `strict=True` says that the sequences have one length. Without it, nothing changes.
        if not (node.arg == "strict" and isinstance(node.value, ast.Constant) and node.value.value is True):
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):
            self.plant(*self.span(node.value), "None")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "TypeVar":
            # Only type checkers read it.
            return
        for left, right in pairwise(node.args):
            if not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
                (start, middle), (behind, end) = self.span(left), self.span(right)
                text = self.source[behind:end] + self.source[middle:behind] + self.source[start:middle]
                if self.source[behind:end] != self.source[start:middle]:
                    self.plant(start, end, text)
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts are compared by tests of their own."""


def faults(file: str, source: str) -> Iterator[Fault]:
    """All faults that can be planted in this source."""
    planter = _Planter(file, source)
    planter.visit(ast.parse(source))
    messages = [planter.span(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise) and node.exc]
    for fault in planter.found:
        # Not within an error's message, but the `raise` itself may go.
        inside = any(start < fault.start and fault.end <= end for start, end in messages)
        if not inside and compiles(fault.planted(source)):
            yield fault


def compiles(source: str) -> bool:
    """Whether it is Python at all."""
    try:
        compile(source, "fault", "exec")
    except SyntaxError:
        return False
    return True
