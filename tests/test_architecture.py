"""The shape of the house: which way imports point, what classes may do, and what no code may contain.

Everything is read from source text; the package is not imported. Every rule is also shown to fail on
a few lines that break it, and to let pass the nearest lines that do not.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = "quincunx"
SOURCE = Path(__file__).parent.parent / "src" / PACKAGE

# Lowest first. A module imports only from rows above its own in this list; `nets.*` is a row entry for every
# module of a subpackage, and these may import one another without going round in circles.
ROWS = [
    ["_types", "_defaults", "_version", "_host_process", "_host_worker"],
    ["_host_pool", "_host_program", "prior", "progress", "observations"],
    ["simulator", "tables"],
    ["mined", "ratio"],
    ["host", "simulations", "simulators.*"],
    ["simulate", "losses", "checkpoint", "references"],
    ["nets.*"],
    ["mine"],
    ["_program_run", "gold_files", "gold_quality"],
    ["_program_prior", "_program_host"],
    ["_program_checks"],
    ["program"],
    ["space"],
    ["posterior"],
    ["kernel"],
    ["fit", "methods.*", "frequentist.*"],
    ["_diagnostic_records", "_roc_classifier"],
    ["io", "plots", "evaluation", "calibration", "diagnostics"],
    ["infer"],
    ["train_ratio"],
    ["config", "demo", "reproduce.*"],
    ["__init__"],
    ["_terminal"],
    ["cli_gold"],
    ["cli"],
    ["__main__"],
]
SPEAKERS = ("cli", "progress")  # the only modules that may print

Sources = dict[str, str]  # module, such as `nets.layers` or `nets.__init__` -> its text


def read_package(root: Path = SOURCE) -> Sources:
    files = sorted(root.rglob("*.py"))
    return {".".join(file.relative_to(root).with_suffix("").parts): file.read_text("utf-8") for file in files}


PACKAGE_SOURCES = read_package()


# -- imports ---------------------------------------------------------------------------------------


def imports(module: str, sources: Sources) -> Iterator[str]:
    """The modules of the package that `module` imports, anywhere in its text, inside functions too."""
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.ImportFrom):
            start = _absolute(module, node)
            if start is not None:
                yield from (_existing([*start, alias.name], sources) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield _existing(alias.name.split(".")[1:], sources)


def _absolute(module: str, node: ast.ImportFrom) -> list[str] | None:
    """The path inside the package of `from path import ...`; None when it is another package's."""
    path = node.module.split(".") if node.module else []
    if node.level:
        return [*module.split(".")[: -node.level], *path]
    return path[1:] if path[:1] == [PACKAGE] else None


def _existing(path: list[str], sources: Sources) -> str:
    """The longest leading part of the path that is a module; what is left is a name in it."""
    for length in range(len(path), 0, -1):
        for name in (".".join(path[:length]), ".".join([*path[:length], "__init__"])):
            if name in sources:
                return name
    return "__init__"


def row_of(module: str) -> int | None:
    entry = f"{module.split('.')[0]}.*" if "." in module else module
    return next((number for number, row in enumerate(ROWS) if entry in row), None)


def wrong_direction(sources: Sources) -> list[str]:
    problems = [f"{module} has no place in ROWS; give it one" for module in sources if row_of(module) is None]
    for module in sources:
        for other in sorted(set(imports(module, sources))):
            own, its = row_of(module), row_of(other)
            family = "." in module and module.split(".")[0] == other.split(".")[0]
            if own is not None and its is not None and its >= own and not family:
                problems.append(f"{module} imports {other}, which does not stand below it")
    return problems


def circles(sources: Sources) -> list[str]:
    """Modules that import themselves through others."""
    graph = {module: set(imports(module, sources)) for module in sources}
    problems = []
    for module in sources:
        seen: set[str] = set()
        todo = list(graph[module])
        while todo:
            other = todo.pop()
            if other not in seen:
                seen.add(other)
                todo += graph[other]
        if module in seen:
            problems.append(f"{module} imports itself, in a circle")
    return problems


# -- classes ---------------------------------------------------------------------------------------


def _classes(sources: Sources) -> dict[str, ast.ClassDef]:
    trees = (ast.parse(text) for text in sources.values())
    return {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _last_name(node: ast.expr) -> str:
    """`Name` for Name, module.Name and Name[T]."""
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_abstract(name: str) -> bool:
    return re.match(r"_?Abstract[A-Z]", name) is not None


def _is_abstract_method(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(_last_name(d) == "abstractmethod" for d in node.decorator_list)


def _is_abstract_field(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and _last_name(node.annotation) in ("AbstractVar", "AbstractClassVar")


def _contents(node: ast.ClassDef) -> list[ast.stmt]:
    """The body without docstrings, `pass` and `...`."""
    plain = lambda s: isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
    return [statement for statement in node.body if not plain(statement)]


def neither_abstract_nor_final(sources: Sources) -> list[str]:
    """Classes that are built and subclassed, or could be."""
    problems = []
    classes = _classes(sources)
    for name, node in classes.items():
        for base in map(_last_name, node.bases):
            if base in classes and not _is_abstract(base):
                problems.append(f"{name} subclasses {base}, which is final")
        problems += _wrong_contents(name, node) + _overridden(name, node, classes)
    for module, text in sources.items():
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and _is_abstract(_last_name(call.func)) and _last_name(call.func) in classes:
                problems.append(f"{module} builds {_last_name(call.func)}, which is abstract")
    return problems


def _wrong_contents(name: str, node: ast.ClassDef) -> list[str]:
    holes = [s for s in node.body if _is_abstract_method(s) or _is_abstract_field(s)]
    if not _is_abstract(name):
        return [f"{name} has abstract members; call it Abstract{name.lstrip('_')}"] if holes else []
    problems = []
    if _contents(node) and not holes:
        problems.append(f"{name} has nothing abstract; it is a final class under an abstract name")
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and not _is_abstract_field(statement):
            problems.append(f"{name} is abstract and has the field {_last_name(statement.target)}")
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            problems.append(f"{name} is abstract and has an __init__")
    return problems


def _overridden(name: str, node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[str]:
    """Methods that replace a concrete one of a base class."""
    own = {s.name for s in node.body if isinstance(s, ast.FunctionDef)} - {"__check_init__"}
    problems, todo, seen = [], [_last_name(b) for b in node.bases], set()
    while todo:
        base = todo.pop()
        if base not in classes or base in seen:
            continue
        seen.add(base)
        todo += [_last_name(b) for b in classes[base].bases]
        for s in classes[base].body:
            if isinstance(s, ast.FunctionDef) and s.name in own and not _is_abstract_method(s):
                problems.append(f"{name}.{s.name} overrides {base}.{s.name}, which is concrete")
    return problems


# -- what no code may contain ----------------------------------------------------------------------


def forbidden(sources: Sources) -> list[str]:
    problems = []
    for module, text in sources.items():
        banned = {"super", "hasattr"} | (set() if module in SPEAKERS else {"print"})
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assert):
                problems.append(f"{module}:{node.lineno} has an assert; raise an error that says what to do")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned:
                problems.append(f"{module}:{node.lineno} calls {node.func.id}()")
    return problems


# -- the package, and what the rules are worth -----------------------------------------------------


@pytest.mark.parametrize("rule", [wrong_direction, circles, neither_abstract_nor_final, forbidden])
def test_package_keeps_the_rule(rule: Callable[[Sources], list[str]]):
    assert len(PACKAGE_SOURCES) > 20  # it was found
    assert rule(PACKAGE_SOURCES) == []


def test_every_row_entry_is_in_use():
    used = {f"{module.split('.')[0]}.*" if "." in module else module for module in PACKAGE_SOURCES}
    assert [entry for row in ROWS for entry in row if entry not in used] == []


HELPFUL_BASE = """
class AbstractA:
    x: AbstractVar[int]
    @abc.abstractmethod
    def f(s): ...
    def g(s): return 1
"""

BREACHES = [
    (wrong_direction, {"prior": "from .simulate import simulate", "simulate": ""}, "prior imports simulate,"),
    (wrong_direction, {"prior": "def f():\n    from . import fit", "fit": ""}, "prior imports fit,"),
    (wrong_direction, {"prior": "import quincunx.fit", "fit": ""}, "prior imports fit,"),
    (wrong_direction, {"fit": "import quincunx as qx", "__init__": ""}, "fit imports __init__,"),
    (wrong_direction, {"prior": "from .progress import x", "progress": ""}, "prior imports progress,"),  # same row
    (wrong_direction, {"nets.layers": "from ..fit import fit", "fit": ""}, "nets.layers imports fit,"),
    (wrong_direction, {"nets.layers": "from .. import fit", "fit": ""}, "nets.layers imports fit,"),
    (wrong_direction, {"space": "from .methods import alfi", "methods.alfi": ""}, "space imports methods.alfi,"),
    (wrong_direction, {"surprise": ""}, "surprise has no place"),
    (circles, {"nets.a": "from .b import x", "nets.b": "from . import a"}, "nets.a imports itself"),
    (neither_abstract_nor_final, {"m": "class A: pass\nclass B(A): pass"}, "B subclasses A"),
    (neither_abstract_nor_final, {"m": "class A: pass", "n": "class B(m.A[int]): pass"}, "B subclasses A"),
    (neither_abstract_nor_final, {"m": "class AbstractA: pass\na = AbstractA()"}, "m builds AbstractA"),
    (neither_abstract_nor_final, {"m": "class A:\n @abc.abstractmethod\n def f(self): ..."}, "A has abstract members"),
    (neither_abstract_nor_final, {"m": "class A:\n x: eqx.AbstractVar[int]"}, "A has abstract members"),
    (neither_abstract_nor_final, {"m": "class AbstractA:\n def f(self): return 1"}, "AbstractA has nothing abstract"),
    (neither_abstract_nor_final, {"m": "class AbstractA:\n x: int\n y: AbstractVar[int]"}, "has the field x"),
    (neither_abstract_nor_final, {"m": "class AbstractA:\n y: AbstractVar[int]\n def __init__(s): ..."}, "an __init__"),
    (
        neither_abstract_nor_final,
        {"m": HELPFUL_BASE + "class B(AbstractA):\n def g(s): 2"},
        "B.g overrides AbstractA.g",
    ),
    (
        neither_abstract_nor_final,
        {"m": HELPFUL_BASE + "class AbstractB(AbstractA): ...\nclass C(AbstractB):\n def g(s): 2"},
        "C.g overrides AbstractA.g",
    ),
    (forbidden, {"m": "class A:\n def __init__(self): super().__init__()"}, "m:2 calls super()"),
    (forbidden, {"m": "if hasattr(x, 'y'): pass"}, "m:1 calls hasattr()"),
    (forbidden, {"m": "def f(x):\n assert x"}, "m:2 has an assert"),
    (forbidden, {"m": "print(1)"}, "m:1 calls print()"),
    (forbidden, {"cli": "assert x"}, "cli:1 has an assert"),
]


@pytest.mark.parametrize(("rule", "sources", "complaint"), BREACHES)
def test_rule_notices_a_breach(rule: Callable[[Sources], list[str]], sources: Sources, complaint: str):
    assert any(complaint in problem for problem in rule(sources)), rule(sources)


INNOCENT = [
    (wrong_direction, {"fit": "from .prior import Prior\nimport numpy.fit, quincunxes", "prior": ""}),
    (wrong_direction, {"nets.encoder": "from .layers import x\nfrom ..prior import y", "nets.layers": "", "prior": ""}),
    (wrong_direction, {"cli": "import quincunx as qx", "__init__": "from .fit import fit", "fit": ""}),
    (circles, {"nets.a": "from .b import x", "nets.b": "from .c import x", "nets.c": ""}),
    (neither_abstract_nor_final, {"m": "class AbstractA: 'a marker'\nclass B(AbstractA): pass\nb = B()"}),
    (neither_abstract_nor_final, {"m": "class E(ValueError): pass\nclass D(eqx.Module):\n x: int"}),
    (neither_abstract_nor_final, {"m": HELPFUL_BASE + "class B(AbstractA):\n x: int\n def f(s): 2"}),
    (forbidden, {"m": "s = 'assert super() print() hasattr()'\nfingerprint(s)\nfile.print(s)", "cli": "print(1)"}),
]


@pytest.mark.parametrize(("rule", "sources"), INNOCENT)
def test_rule_lets_the_innocent_pass(rule: Callable[[Sources], list[str]], sources: Sources):
    assert rule(sources) == []
