"""The shape of the house: which way imports point, what classes may do, and what no code may contain.

Everything is read from source text; the package is not imported. Every rule is also shown to fail on
a few lines that break it, and to let pass the nearest lines that do not.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = "quincunx"
SOURCE = Path(__file__).parent.parent / "src" / PACKAGE

# The rooms, in order: a module imports from its own room and from those before it, nothing else of the package. Answers
# stand before methods: a method makes estimators, and what an estimator is, and what can be asked of it, stands there.
ROOMS = ["core", "sample", "gold", "control", "problems", "answers", "methods", "checks", "campaigns", "cli"]
TOP = ["__init__", "__main__"]
MOST_FILES = 13

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


def room_of(module: str) -> int | None:
    """The place of the module's room in the order; above all rooms for the top of the package."""
    name = module.split(".")[0]
    return len(ROOMS) if name in TOP else ROOMS.index(name) if name in ROOMS else None


def wrong_direction(sources: Sources) -> list[str]:
    problems = [
        f"{module} is in no room; rooms are {', '.join(ROOMS)}" for module in sources if room_of(module) is None
    ]
    for module in sources:
        for other in sorted(set(imports(module, sources))):
            own, its = room_of(module), room_of(other)
            if own is not None and its is not None and its > own:
                problems.append(f"{module} imports {other}, which does not stand below it")
    return problems


def crowded(sources: Sources) -> list[str]:
    """Folders with more files than a room should have."""
    folders = Counter(module.rpartition(".")[0] for module in sources)
    return [f"{folder} has {count} files" for folder, count in folders.items() if count > MOST_FILES + 1]  # __init__


def twins(sources: Sources) -> list[str]:
    """Files that share a name."""
    names = Counter(module.rpartition(".")[2] for module in sources)
    return [f"{count} files are called {name}" for name, count in names.items() if count > 1 and name not in TOP]


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
        for base in map(_last_name, (base for base in node.bases if ast.unparse(base) != "abc.ABC")):  # Python's own
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
        banned = {"super", "hasattr"} | (set() if module.startswith("cli.") else {"print"})  # only commands speak
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assert):
                problems.append(f"{module}:{node.lineno} has an assert; raise an error that says what to do")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned:
                problems.append(f"{module}:{node.lineno} calls {node.func.id}()")
    return problems


# -- the package, and what the rules are worth -----------------------------------------------------


@pytest.mark.parametrize("rule", [wrong_direction, circles, crowded, twins, neither_abstract_nor_final, forbidden])
def test_package_keeps_the_rule(rule: Callable[[Sources], list[str]]):
    assert len(PACKAGE_SOURCES) > 20  # it was found
    assert rule(PACKAGE_SOURCES) == []


def test_every_room_is_in_use():
    assert {module.split(".")[0] for module in PACKAGE_SOURCES} == {*ROOMS, *TOP}


HELPFUL_BASE = """
class AbstractA:
    x: AbstractVar[int]
    @abc.abstractmethod
    def f(s): ...
    def g(s): return 1
"""

CROWD = {f"core.file_{number}": "" for number in range(MOST_FILES + 2)}
BREACHES = [
    (
        wrong_direction,
        {"core.prior": "from ..sample.simulate import simulate", "sample.simulate": ""},
        "imports sample.",
    ),
    (
        wrong_direction,
        {"core.a": "def f():\n    from ..gold import mine", "gold.mine": ""},
        "core.a imports gold.mine,",
    ),
    (wrong_direction, {"core.a": "import quincunx.cli.app", "cli.app": ""}, "core.a imports cli.app,"),
    (wrong_direction, {"gold.a": "import quincunx as qx", "__init__": ""}, "gold.a imports __init__,"),
    (wrong_direction, {"answers.bayes.a": "from ...methods import b", "methods.b": ""}, "imports methods.b,"),
    (wrong_direction, {"surprise": ""}, "surprise is in no room"),
    (crowded, CROWD, "core has 15 files"),
    (twins, {"core.prior": "", "gold.prior": ""}, "2 files are called prior"),
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
    (forbidden, {"cli.a": "assert x"}, "cli.a:1 has an assert"),
]


@pytest.mark.parametrize(("rule", "sources", "complaint"), BREACHES)
def test_rule_notices_a_breach(rule: Callable[[Sources], list[str]], sources: Sources, complaint: str):
    assert any(complaint in problem for problem in rule(sources)), rule(sources)


INNOCENT = [
    (wrong_direction, {"core.fit": "from .prior import Prior\nimport numpy.fit, quincunxes", "core.prior": ""}),
    (
        wrong_direction,
        {"methods.nets.a": "from ...core.b import x\nfrom .c import y", "core.b": "", "methods.nets.c": ""},
    ),
    (wrong_direction, {"__main__": "from .cli.app import main", "cli.app": ""}),
    (crowded, {f"core.file_{number}": "" for number in range(MOST_FILES)}),
    (twins, {"core.__init__": "", "gold.__init__": "", "core.a": "", "gold.b": ""}),
    (circles, {"nets.a": "from .b import x", "nets.b": "from .c import x", "nets.c": ""}),
    (neither_abstract_nor_final, {"m": "class AbstractA: 'a marker'\nclass B(AbstractA): pass\nb = B()"}),
    (neither_abstract_nor_final, {"m": "class E(ValueError): pass\nclass D(eqx.Module):\n x: int"}),
    (neither_abstract_nor_final, {"m": HELPFUL_BASE + "class B(AbstractA):\n x: int\n def f(s): 2"}),
    (forbidden, {"m": "s = 'assert super() print() hasattr()'\nfingerprint(s)\nfile.print(s)", "cli.a": "print(1)"}),
]


@pytest.mark.parametrize(("rule", "sources"), INNOCENT)
def test_rule_lets_the_innocent_pass(rule: Callable[[Sources], list[str]], sources: Sources):
    assert rule(sources) == []
