"""Digests of source by what it does: comments, docstrings, layout and annotations of functions do not count."""

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

__all__ = ["source_digest"]


def source_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over files in the order given (64 hex digits): Python by its syntax tree, all others by their bytes.

    What is stored under such a digest stays valid when a docstring is edited, and is made anew when a constant, a
    default, an operator or an import is. Names of files do not count.
    """
    content = hashlib.sha256()
    for path in paths:
        about = path.stat()
        content.update(_digest(path, about.st_size, about.st_mtime_ns))
    return content.hexdigest()


@lru_cache(maxsize=1024)
def _digest(path: Path, size: int, mtime_ns: int) -> bytes:
    """Of one file; size and time of change are there to miss the cache when the file was replaced."""
    text = path.read_bytes()
    return hashlib.sha256(_behaviour(text.decode()).encode() if path.suffix == ".py" else text).digest()


def _behaviour(source: str) -> str:
    return ast.unparse(ast.fix_missing_locations(_Stripped().visit(ast.parse(source))))


class _Stripped(ast.NodeTransformer):
    """Leaves out what does nothing: strings that stand alone, and what only type checkers read.

    Annotations in the body of a class stay: dataclasses and pydantic make fields of them.
    """

    def __init__(self) -> None:
        self._in_class = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Visits the children; a body that nothing is left of passes."""
        super().generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If | ast.For | ast.With):
            node.body = node.body or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Its own statements keep their annotations."""
        return self._inside(node, in_class=True)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Without the type that it returns."""
        node.returns = None
        return self._inside(node, in_class=False)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """As of any function."""
        node.returns = None
        return self._inside(node, in_class=False)

    def _inside(self, node: ast.AST, in_class: bool) -> ast.AST:
        outside, self._in_class = self._in_class, in_class
        try:
            return self.generic_visit(node)
        finally:
            self._in_class = outside

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """An argument without its type."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Outside classes a mere assignment, or nothing."""
        if self._in_class:
            return self.generic_visit(node)
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """No docstrings."""
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """No imports of types."""
        types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse
        return None if types else self.generic_visit(node)
