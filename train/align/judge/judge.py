"""The judge: a server that forks itself for each answer. The task's tests run here, with the task's own helpers; the
functions of the answer are proxies that call into the answer's process. What is expected never leaves this process; the
verdict goes to the trainer by a descriptor of its own. A job is four descriptors: its texts, from the answer,
to the answer, for the verdict."""
import ast
import builtins
import gc
import io
import linecache
import marshal
import operator
import os
import random
import re
import socket
import struct
import sys
import traceback
import types

ALIASES = {"np": "numpy", "pd": "pandas", "dt": "datetime", "plt": "matplotlib.pyplot"}
OPERATORS = "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift"
COMPARISONS = "lt le gt ge"
TEST_RUNNERS = {"unittest", "pytest", "_pytest"}  # whose exceptions are verdicts
PASSED = object()
random_seed = random.seed
judge = None


class AnswerExit(SystemExit):
    """sys.exit in a function of the answer."""


class AnswerInterrupt(KeyboardInterrupt):
    pass


class AnswerObject:
    """An object of the answer's own class. It equals no value of the tests and is never given one to compare with."""
    __slots__ = ("_AnswerObject__number", "_AnswerObject__kind", "_AnswerObject__name")

    def __init__(self, number, kind, name):
        for field, value in (("number", number), ("kind", kind), ("name", name)):
            object.__setattr__(self, "_AnswerObject__" + field, value)

    def __getattr__(self, name):
        if name[:2] == "__" and name not in {"__name__", "__doc__"}:
            raise AttributeError(name)
        return judge.do("get", self, name)

    def __setattr__(self, name, value):
        judge.do("set", self, name, value)

    def __delattr__(self, name):
        judge.do("delete", self, name)

    def __call__(self, *args, **named):
        return judge.do("call", self, args, tuple(named.items()))

    def __getitem__(self, key):
        return judge.do("item", self, key)

    def __setitem__(self, key, value):
        judge.do("set_item", self, key, value)

    def __delitem__(self, key):
        judge.do("delete_item", self, key)

    def __len__(self):
        return judge.plain(int, "len", self)

    def __iter__(self):
        found = judge.do("apply", "iter", self)
        return found if type(found) is AnswerObject else iter(found)

    def __next__(self):
        return judge.do("apply", "next", self)

    def __reversed__(self):
        return judge.do("apply", "reversed", self)

    def __contains__(self, value):
        return any(value is x or value == x for x in self)

    def __bool__(self):
        return judge.plain(bool, "bool", self)

    def __str__(self):
        return judge.plain(str, "str", self)

    def __repr__(self):
        return judge.plain(str, "repr", self)

    def __hash__(self):
        return self.__number

    def __eq__(self, other):
        return judge.equal(self, other) if type(other) is AnswerObject else NotImplemented

    def __enter__(self):
        return judge.do("call", judge.do("get", self, "__enter__"), (), ())

    def __exit__(self, *error):
        return judge.do("call", judge.do("get", self, "__exit__"), (None, None, None), ())

    def __copy__(self):
        return judge.do("copy", "copy", self)

    def __deepcopy__(self, memo):
        return judge.do("copy", "deepcopy", self)

    def __instancecheck__(self, x):
        return handle_of(x) is not None and judge.plain(bool, "isinstance", x, self)

    def __subclasscheck__(self, x):
        return handle_of(x) is not None and judge.plain(bool, "issubclass", x, self)

    def __await__(self):
        return judge.do("await", self)
        yield

    def __dir__(self):
        return judge.do("apply", "dir", self)


def two_operands(name):
    def apply(self, other):
        if type(other) is not AnswerObject:
            raise TypeError("an operator of the answer's own class is not given a value of the tests")
        return judge.do("apply", name, self, other)
    return apply


for name in (OPERATORS + " " + COMPARISONS).split():
    setattr(AnswerObject, "__%s__" % name.rstrip("_"), two_operands(name))
for name in "neg pos abs invert".split():
    setattr(AnswerObject, "__%s__" % name, lambda self, name=name: judge.do("apply", name, self))


def forward(self, name):
    if name[:2] == "__":
        raise AttributeError(name)
    return judge.do("get", self.__dict__["_answer_object"], name)


# Instances of the answer's subclasses of plain types are what they are as that type; only attributes that the type does
# not have are asked for.
SUBCLASSES = {base.__name__: type("Answer_" + base.__name__, (base,), {"__getattr__": forward}) for base in PLAIN}


def handle_of(x):
    return x if type(x) is AnswerObject else x.__dict__["_answer_object"] if type(x) in SUBCLASSES.values() else None


class Judge(Peer):
    def __init__(self, source, sink):
        Peer.__init__(self, source, sink)
        self.theirs, self.exceptions = {}, {}
        self.broken = None
        self.streams = (sys.stdout, sys.stdin, builtins.input)

    # ---- requests ----

    def do(self, what, *args):
        if self.broken:
            raise Gone()
        out, into, ask = self.streams
        flags = (sys.stdout is not out) + 2 * (sys.stdin is not into or builtins.input is not ask)
        try:
            return self.ask(what, flags, *args)
        except Gone:
            self.broken = "the answer's program ended before its tests were over"
            raise
        except Malformed as e:
            self.broken = "the answer's program wrote to its judge: %s" % e
            raise Gone() from None

    def plain(self, kind, *args):
        value = self.do("apply", *args)
        if type(value) is not kind:
            raise TypeError("%s() of an object of the answer's own class gave no %s" % (args[0], kind.__name__))
        return value

    def equal(self, a, b):
        """Two objects of the answer's: its word counts only from a class that tells objects apart, by their contents."""
        other = "%032x" % random.SystemRandom().getrandbits(128)
        if self.do("apply", "eq", a, b) is not True or self.do("apply", "eq", a, other) is True:
            return False
        try:
            states = [self.do("apply", "state", x) for x in (a, b)]
        except TypeError:  # nothing can be seen of them
            return True
        return states[0] == states[1] if a is not b and all(type(s) is tuple for s in states) else a is b

    def printed(self, text):
        if type(text) is str and text and sys.stdout is not self.streams[0]:
            sys.stdout.write(text)

    # ---- objects ----

    def put_object(self, w, x, depth):
        handle = handle_of(x)
        if handle is None and type(x) is type:
            handle = self.exceptions.get(x)
        if handle is not None:
            w.put_theirs(handle._AnswerObject__number)
        else:
            kind = b"f" if callable(x) else b"i" if type(x).__module__ == "__main__" else b"o"
            w.put_own(self.number(x), kind, type(x).__name__)

    def get_object(self, r, letter, depth):
        if letter == b"O":
            n = r.count()
            if n not in self.own:
                raise Malformed("an object that it was not given")
            return self.own[n]
        if letter == b"u" and r.take(1) != b"o":
            raise Malformed("not a value")
        number, kind, name = r.count(), r.take(1), r.text()
        lineage = r.get(depth + 1) if kind == b"x" else None
        handle = self.theirs.setdefault(number, AnswerObject(number, kind, name))
        if letter == b"u" and kind == b"n":
            return array(name, r.get(depth + 1))
        if letter == b"u":
            return self.subclass(handle, r.text(), r.get(depth + 1))
        if kind == b"x":
            return self.exception(handle, lineage)
        return self.coroutine(handle) if kind == b"k" else handle

    async def coroutine(self, handle):
        return self.do("await", handle)

    @staticmethod
    def subclass(handle, base, value):
        if base not in SUBCLASSES:
            raise Malformed("not a plain type")
        x = SUBCLASSES[base](value)
        x.__dict__["_answer_object"] = handle
        return x

    # ---- errors ----

    def exception(self, handle, lineage):
        for kind, known in self.exceptions.items():
            if known is handle:
                return kind
        kind = type(handle._AnswerObject__name, (self.known(lineage),), {"__module__": "__main__"})
        self.exceptions[kind] = handle
        return kind

    @staticmethod
    def known(lineage):
        for module, name in lineage:
            kind = getattr(sys.modules.get(module), name, None) if module else None
            if kind is SystemExit or kind is KeyboardInterrupt:
                return AnswerExit if kind is SystemExit else AnswerInterrupt
            if isinstance(kind, type) and issubclass(kind, Exception) and module.split(".")[0] not in TEST_RUNNERS:
                return kind
        return Exception

    def error(self, value):
        lineage, own, args, text, code = value
        kind = own if isinstance(own, type) and issubclass(own, BaseException) else self.known(lineage)
        try:
            return kind(code) if kind is AnswerExit else kind(*args)
        except Exception:
            return Exception(text)

    @staticmethod
    def describe(e):
        names = tuple(c.__name__ for c in type(e).__mro__ if c.__module__ == "builtins")
        return names, tuple(a for a in e.args if type(a) in (int, float, str, bool))

    # ---- what the answer may ask of the tests' objects ----

    def serve(self, what, *args):
        if what not in SERVED or (args and what not in {"input", "binary"} and self.numbers.get(id(args[0])) is None):
            raise TypeError("not for the answer")
        return SERVED[what](*args), ""


SHOWN = (io.StringIO, io.BytesIO, re.Pattern, re.Match, random.Random)


def visible(x, name):
    """Attributes of objects that tests make from own classes, and of streams, patterns and random generators."""
    if isinstance(x, types.GeneratorType):
        shown = name in {"send", "close", "throw"}
    else:
        shown = type(name) is str and name[:1] != "_" and (type(x).__module__ == "__main__" or isinstance(x, SHOWN))
    if not shown or isinstance(x, (type, types.ModuleType, types.FunctionType, types.MethodType)):
        raise AttributeError(name)
    return name


BINARY = {n: getattr(operator, n) for n in (OPERATORS + " " + COMPARISONS + " eq ne").split()}
SERVED = {
    "get": lambda x, name: getattr(x, visible(x, name)),
    "set": lambda x, name, value: setattr(x, visible(x, name), value),
    "call": lambda f, args, named: f(*args, **dict(named)), "iter": iter, "next": next, "item": lambda x, key: x[key],
    "set_item": lambda x, key, value: x.__setitem__(key, value), "len": len, "contains": lambda x, value: value in x,
    "str": str, "repr": repr, "bool": bool, "enter": lambda x: x.__enter__(),
    "leave": lambda x: x.__exit__(None, None, None),
    "binary": lambda name, x, y: BINARY[name](x, y) if handle_of(x) is None else NotImplemented,
    "input": lambda prompt: builtins.input(prompt), "readline": lambda: sys.stdin.readline(),
    "read": lambda: sys.stdin.read(),
}


def array(dtype, value):
    shape, items = value
    try:
        import numpy
    except ImportError:
        return list(items)
    if dtype.strip("<>|=")[:1] not in tuple("biufcSU"):
        raise Malformed("an array of objects")
    return numpy.array(items, dtype=dtype).reshape(shape)


# ---- the names of the tests ----

class Names(dict):
    """Builtins, and behind them what the answer defines. A module is not taken from the answer but imported here."""

    def __missing__(self, name):
        there, value = judge.do("look", name)
        if not there:
            raise KeyError(name)
        if type(value) is AnswerObject and value._AnswerObject__kind == b"m":
            module = ALIASES.get(name, name)
            if name not in ALIASES and name not in sys.stdlib_module_names:
                raise KeyError(name)
            try:
                value = __import__(module, fromlist=["*"])
            except ImportError:
                raise KeyError(name) from None
        if type(value) is AnswerObject or isinstance(value, types.ModuleType):
            self[name] = value
        return value


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = FUNCTIONS + (ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)


def is_text(s):
    return isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)


def is_stub(f):
    """A function whose body is its documentation, or says that it is to be written."""
    return all(isinstance(s, (ast.Pass, ast.Raise)) or is_text(s) for s in f.body)


def helpers(prompt, entry):
    """Of a prompt that is a program to be completed: what it imports, and the functions, classes and constants it
    defines itself. A prompt that only shows a program (to be mended) gives none."""
    try:
        body = ast.parse(prompt).body
    except (SyntaxError, ValueError, RecursionError):
        return {}
    functions = [s for s in body if isinstance(s, FUNCTIONS)]
    if entry is None and not any(is_stub(f) for f in functions):
        return {}
    scope = {"__name__": "__main__"}
    for s in body:
        if isinstance(s, DEFINITIONS) and not (s in functions and is_stub(s)):
            try:
                exec(compile(ast.Module([s], []), "<prompt>", "exec"), scope)
            except Exception:  # the tests may do without it
                pass
    return {n: v for n, v in scope.items() if n[:2] != "__" and n != entry}


def called_name(node):
    """f of a call f(...)."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def entry_point(tree):
    """X of a check(X) at the end of the tests."""
    last = tree.body[-1] if tree.body else None
    call = last.value if isinstance(last, ast.Expr) else None
    if not isinstance(call, ast.Call) or called_name(call) != "check" or len(call.args) != 1:
        return None
    return call.args[0].id if isinstance(call.args[0], ast.Name) else None


def tested_builtin(tree, scope):
    """The tests call no function but builtin ones: the one of these that the answer defines is tested. Only one that
    each assertion calls once: what both sides of a comparison go through must be the judge's."""
    called = {called_name(n) for n in ast.walk(tree)} - {None}
    bound = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    if any(n not in builtins.__dict__ and n not in bound and n not in scope for n in called):
        return None
    asserts = [a for a in ast.walk(tree) if isinstance(a, ast.Assert)]
    checks = [[called_name(n) for n in ast.walk(a) if called_name(n)] for a in asserts]
    for name in checks[0] if checks else ():
        if all(c.count(name) == 1 for c in checks) and name not in bound and judge.do("look", name)[0]:
            return name
    return None


# ---- one answer ----

def last_line(e):
    """Where in the tests it went wrong, and what."""
    what = traceback.format_exception_only(type(e), e)[-1].strip().split("\n")[-1]
    lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == "<tests>"]
    line = linecache.getline("<tests>", lines[-1]).strip() if lines else ""
    return "%s: %s" % (line, what) if line else what


def run_defined(tree, scope):
    """Tests that only define test functions and cases, for a program that collects them, would pass by not running."""
    if not all(isinstance(s, DEFINITIONS) or is_text(s) for s in tree.body):
        return
    for s in tree.body:
        if isinstance(s, ast.FunctionDef) and s.name[:4] == "test" and not s.args.args:
            scope[s.name]()
        elif isinstance(s, ast.ClassDef) and "unittest" in sys.modules:
            import unittest
            if isinstance(scope[s.name], type) and issubclass(scope[s.name], unittest.TestCase):
                result = unittest.TestResult()
                unittest.defaultTestLoader.loadTestsFromTestCase(scope[s.name]).run(result)
                for test, text in result.failures + result.errors:
                    raise AssertionError("%s: %s" % (test, text.strip().split("\n")[-1]))


def seed_both(seed, *args, **named):
    """The answer draws its random numbers in its own process: seeded by the tests, they are the same there."""
    random_seed(seed, *args, **named)
    judge.do("seed", seed)


def run_tests(answer, tests, prompt):
    linecache.cache["<tests>"] = (len(tests), None, tests.splitlines(True), "<tests>")
    try:
        tree = ast.parse(tests, "<tests>")
    except (SyntaxError, ValueError) as e:
        return "the tests are no Python: %s" % e
    try:
        judge.do("run", answer)
    except Exception as e:
        return last_line(e)
    random.seed = seed_both
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    scope = main.__dict__
    entry = entry_point(tree)
    scope.update(helpers(prompt, entry))
    scope["__builtins__"] = Names(builtins.__dict__)
    name = entry or tested_builtin(tree, scope)
    if name and name not in scope:
        there, value = judge.do("look", name)
        if there:
            scope[name] = value
    try:
        exec(compile(tree, "<tests>", "exec"), scope)
        run_defined(tree, scope)
    except AnswerExit as e:
        return "the answer ended itself (sys.exit(%r))" % (e.code,)
    except SystemExit as e:  # of unittest.main()
        return judge.broken or (PASSED if not e.code else "the tests ended with status %r" % (e.code,))
    except BaseException as e:
        return judge.broken or last_line(e)
    return judge.broken or PASSED


def judge_one(job, source, sink, verdict):
    global judge
    judge = Judge(source, sink)
    with open(job, "rb") as f:
        data, texts = f.read(), []
    while data:
        n = struct.unpack("<Q", data[:8])[0]
        texts.append(data[8:8 + n].decode("utf-8", "replace"))
        data = data[8 + n:]
    os.write(sink, ANSWER_SIDE)
    why = "the answer's program ended"
    try:
        why = run_tests(*texts)
    except Gone:
        why = judge.broken or why
    except BaseException as e:
        why = "the judge failed: %r" % (e,)
    os.write(verdict, b"passed" if why is PASSED else b"failed " + why.encode("utf-8", "replace")[:400])


def serve():
    control = socket.socket(fileno=3)
    null = os.open("/dev/null", os.O_RDWR)
    gc.collect()
    gc.freeze()
    control.send(b"j")  # it runs
    while True:
        message, fds, _, _ = socket.recv_fds(control, 16, 4)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            try:
                control.close()
                for fd in range(3):
                    os.dup2(null, fd)
                random.seed()
                judge_one(*fds)
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)
        os.waitpid(pid, 0)


sys.setrecursionlimit(4000)
code = marshal.dumps(compile(ANSWER_PROGRAM, "<answer's side>", "exec"))
ANSWER_SIDE = struct.pack("<Q", len(code)) + code
serve()
