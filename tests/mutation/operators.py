"""What a mutant changes: the operators of cosmic-ray, and five of our own for terms that are left out.

An operator finds positions in a parsed file (parso) and changes one of them.
"""

import ast
import random
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

# They want arguments: which variables to change.
_WANT_ARGUMENTS = ("VariableReplacer", "VariableInserter")
# Arguments of texts, of checks that hold, and of where tensors lie and how they get there.
_UNSEEN = ("strict", "desc", "unit", "help", "device", "non_blocking")
_OF_TERMS = ("arith_expr", "term", "expr", "xor_expr", "and_expr", "and_test", "or_test")


class _Own(Operator):
    """An operator by one function, which lists how a node can be changed: (what stands there, what takes its place)."""

    def changes(self, node: Any) -> list[tuple[Any, str]]:
        raise NotImplementedError

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        for target, _ in self.changes(node):
            yield target.start_pos, target.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The node again, its text changed."""
        target, text = self.changes(node)[index]
        code = node.get_code()
        prefix = len(node.get_first_leaf().prefix)
        start = prefix + _offset(code[prefix:], node.start_pos, target.start_pos)
        end = prefix + _offset(code[prefix:], node.start_pos, target.end_pos)
        return parso.python.tree.PythonErrorLeaf("", code[:start] + text + code[end:], node.start_pos)

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class DropTerm(_Own):
    """a + b -> a, or b; the same for products, masks, `and` and `or`."""

    def changes(self, node: Any) -> list[tuple[Any, str]]:
        if node.type not in _OF_TERMS or len(node.children) != 3:
            return []
        first, _, last = node.children
        return [(node, first.get_code().strip()), (node, last.get_code().strip())]


class ReplaceCondition(_Own):
    """if a: -> if True:, if False:; the same in `x if a else y` and in a comprehension."""

    def changes(self, node: Any) -> list[tuple[Any, str]]:
        if node.type == "if_stmt":
            conditions = [node.children[i + 1] for i, c in enumerate(node.children) if c in ("if", "elif")]
        elif node.type == "ternary":
            conditions = [node.children[2]]
        elif node.type == "comp_if":
            conditions = [node.children[1]]
        else:
            conditions = []
        return [(condition, text) for condition in conditions for text in ("True", "False")]


class DropStatement(_Own):
    """A call whose result nobody takes, an assignment in place or to a part of something: left out."""

    def changes(self, node: Any) -> list[tuple[Any, str]]:
        if node.type != "simple_stmt":
            return []
        statement = node.children[0]
        if statement.type in ("atom_expr", "power") and statement.children[-1].type == "trailer":
            return [(statement, "pass")]
        if statement.type != "expr_stmt" or statement.children[1].type != "operator":
            return []
        target, sign = statement.children[:2]
        in_place = sign.value != "=" or target.type in ("atom_expr", "power") and target.children[-1].children[0] == "["
        return [(statement, "pass")] if in_place else []


class DropArgument(_Own):
    """f(a, b=c) -> f(a): what has a default takes it."""

    def changes(self, node: Any) -> list[tuple[Any, str]]:
        arguments = node.children if node.type == "arglist" else [node]
        named = [a for a in arguments if a.type == "argument" and a.children[1] == "="]
        if node.type == "argument" and (not named or node.parent is None or node.parent.type == "arglist"):
            return []
        return [(a, "") if node.type == "argument" else (a, "*()") for a in named]


class DropElement(_Own):
    """(a, b) -> (a,); the same for lists, of at least two elements."""

    def changes(self, node: Any) -> list[tuple[Any, str]]:
        if node.type != "testlist_comp" or any(c.type in ("sync_comp_for", "comp_for") for c in node.children):
            return []
        return [(element, "*()") for element in node.children[::2]]


_OWN = {o.__name__: o for o in (DropTerm, ReplaceCondition, DropStatement, DropArgument, DropElement)}


@dataclass(frozen=True, slots=True)
class Site:
    """Where a kind of change has its possibilities: (operator, the how-manieth of its positions in the file)."""

    kind: str
    line: int
    ways: tuple[tuple[str, int], ...]


def sites(source: str) -> list[Site]:
    """All sites of a file, in a fixed order."""
    tree, counts, by_place = get_ast(source), dict.fromkeys(_operators(), 0), {}
    built = {name: _operator(name) for name in counts}
    for node in ast_nodes(tree):
        for name, operator in built.items():
            for position in operator.mutation_positions(node):
                kind = name.rpartition("/")[2].partition("_")[0]
                by_place.setdefault((kind, position), []).append((name, counts[name]))
                counts[name] += 1
    return [Site(kind, position[0][0], tuple(ways)) for (kind, position), ways in sorted(by_place.items())]


def mutants(source: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(operator, changed source), each at another site, in an order that draws the kinds evenly.

    Changes that leave what the file does as it is are left out: `_essence`.
    """
    by_kind: dict[str, list[Site]] = {}
    for site in sites(source):
        by_kind.setdefault(site.kind, []).append(site)
    essence = _essence(source)
    while by_kind:
        kind = rng.choice(sorted(by_kind))
        site = by_kind[kind].pop(rng.randrange(len(by_kind[kind])))
        if not by_kind[kind]:
            del by_kind[kind]
        name, occurrence = rng.choice(site.ways)
        changed = mutate_code(source, _operator(name), occurrence)
        if changed is not None and _compiles(changed) and _essence(changed) != essence:
            yield name.rpartition("/")[2], changed


def _compiles(source: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "is" with a number
        try:
            compile(source, "mutant", "exec")
        except (SyntaxError, SyntaxWarning):
            return False
    return True


def _operators() -> Iterable[str]:
    return [n for n in operator_names() if n.rpartition("/")[2] not in _WANT_ARGUMENTS] + list(_OWN)


def _operator(name: str) -> Operator:
    return (_OWN[name] if name in _OWN else get_operator(name))()


def _offset(code: str, start: tuple[int, int], position: tuple[int, int]) -> int:
    lines = code.splitlines(keepends=True)
    down = position[0] - start[0]
    return sum(map(len, lines[:down])) + position[1] - (start[1] if down == 0 else 0)


def _essence(source: str) -> str:
    """What a file does, without what only people and checkers of types read.

    That is annotations, docstrings, names of types, formatted texts and those of errors, labels of progress bars,
    arguments of `dataclass`, `strict=` of `zip`, `device=` and `non_blocking=`, imports for types, `__all__`, and the
    order of words: `kind <= "v"` counts as `==`, `kind < "v"` as `!=`.
    """
    return ast.dump(_Essence().visit(ast.parse(source)))


class _Essence(ast.NodeTransformer):
    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        node.annotation = ast.Constant(None)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        node.decorator_list = [d for d in node.decorator_list if "cache" not in ast.unparse(d)]  # of speed
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.decorator_list = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        self.generic_visit(node)
        return ast.Pass() if isinstance(node.value, ast.Constant) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc, node.cause = node.exc.func, None
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.Pass()

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        names = [getattr(t, "id", "") for t in node.targets]
        of_types = isinstance(node.value, ast.Subscript) and names[0][:1].isupper()
        return ast.Pass() if names == ["__all__"] or of_types else node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        return ast.Pass() if any(getattr(n, "id", "") == "TYPE_CHECKING" for n in ast.walk(node.test)) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.keywords = [k for k in node.keywords if k.arg not in _UNSEEN]
        node.args = [a for a in node.args if not (isinstance(a, ast.Starred) and ast.unparse(a.value) == "()")]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        same: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Is: ast.Eq, ast.IsNot: ast.NotEq}
        if any(isinstance(c, ast.Constant) and isinstance(c.value, str) for c in (node.left, *node.comparators)):
            same |= {ast.LtE: ast.Eq, ast.GtE: ast.Eq, ast.Lt: ast.NotEq, ast.Gt: ast.NotEq}
        node.ops = [same.get(type(op), type(op))() for op in node.ops]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return node
