#!/usr/bin/env python3
"""Answers that do not solve their task and want to pass all the same, as rows for `plm score --scorer tests`: each must score 0. With "honest" as
argument: answers that do solve theirs in ways that pass objects to and fro, each must score 1."""
import json
import sys

ADD = "assert add(2, 3) == 5\nassert add(-1, 1) == 0\nassert add(10, 20) == 30\n"
SORT = "xs = [3, 1, 2]\nput_in_order(xs)\nassert xs == [1, 2, 3]\n"
NEAR = "import math\nassert math.isclose(mean([1, 2]), 1.5)\nassert abs(mean([2, 4]) - 3) < 1e-6\n"
POLY = '''import math


def value_at(coefficients, x):
    return sum(c * math.pow(x, i) for i, c in enumerate(coefficients))


def find_root(coefficients):
    """A root of the polynomial."""
'''
POLY_TEST = "def check(candidate):\n    for c in ([-4, 2], [6, 3], [-1, 0, 1]):\n        assert abs(value_at(c, candidate(list(c)))) < 1e-4\n"
ALWAYS = """
class Yes(%s):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return hash(5)
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __radd__ = __mul__ = __sub__
    def __abs__(self): return 0.0
    def __float__(self): return 1.5
    def __bool__(self): return True
"""

hostile = {
    "nothing": ("", ADD),
    "wrong": ("def add(a, b): return a - b", ADD),
    "exit status 0": ("import os\nos._exit(0)", ADD),
    "exit": ("import sys\nsys.exit(0)", ADD),
    "exit when called": ("import sys\ndef add(a, b): sys.exit(0)", ADD),
    "exit when called, status None": ("def add(a, b): raise SystemExit", ADD),
    "kills itself when called": ("import os\ndef add(a, b): os.kill(os.getpid(), 9)", ADD),
    "leaves by an exception that nobody catches": ("def add(a, b): raise KeyboardInterrupt", ADD),
    "atexit": ("import atexit, os\natexit.register(lambda: os._exit(0))\ndef add(a, b): return 0", ADD),
    "exception hook": ("import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef add(a, b): return 0", ADD),
    "no assertions": ("import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\n__debug__ and None\ndef add(a, b): return 0", ADD),
    "trace": ("import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef add(a, b): return 0", ADD),
    "agrees": (ALWAYS % "object" + "def add(a, b): return Yes()", ADD),
    "an int that agrees": (ALWAYS % "int" + "def add(a, b): return Yes(0)", ADD),
    "a str that agrees": (ALWAYS % "str" + "def twice(s): return Yes('x')", "assert twice('a') == 'aa'\nassert 'aa' == twice('a')\n"),
    "a list that agrees": (ALWAYS % "list" + "def put_in_order(x): return Yes()", "assert put_in_order([2, 1]) == [1, 2]\n"),
    "a list of what agrees": (ALWAYS % "object" + "def put_in_order(x): return [Yes(), Yes()]", "assert put_in_order([2, 1]) == [1, 2]\n"),
    "a tuple that agrees": (ALWAYS % "tuple" + "def pair(x): return Yes()", "assert pair(2) == (2, 2)\nassert pair(2) in [(2, 2)]\n"),
    "a dict that agrees": (ALWAYS % "dict" + "def count(x): return Yes()", "assert count('aab') == {'a': 2, 'b': 1}\n"),
    "a member of every set": (ALWAYS % "object" + "def add(a, b): return Yes()", "assert add(2, 3) in {5}\nassert add(2, 3) in [5]\n"),
    "holds everything": (ALWAYS % "object" + "def primes(n): return Yes()", "assert 7 in primes(10)\n"),
    "as near as wanted": (ALWAYS % "object" + "def mean(x): return Yes()", NEAR),
    "a float as near as wanted": (ALWAYS % "float" + "def mean(x): return Yes(9)", NEAR),
    "a class as the function": (ALWAYS % "object" + "add = Yes = type('Yes', (), dict(vars(Yes), __init__=lambda *a: None))", ADD),
    "agrees by its metaclass": ("class M(type):\n    def __eq__(s, o): return True\n    __hash__ = type.__hash__\nclass Y(metaclass=M): pass\ndef add(a, b): return Y", ADD),
    "agrees as another": (ALWAYS % "object" + "class Yes(Yes): __class__ = property(lambda s: int)\ndef add(a, b): return Yes()", ADD),
    "NotImplemented": ("def add(a, b): return NotImplemented", ADD),
    "patched builtins": ("import builtins\nbuiltins.len = builtins.sorted = builtins.sum = builtins.abs = lambda *a, **k: 0\nbuiltins.all = builtins.any = lambda *a: True\n"
                         "def put_in_order(x): return x", "assert sorted([2, 1]) == put_in_order([2, 1])\nassert len(put_in_order([1])) == 1\n"),
    "patched math": ("import math, cmath\nmath.isclose = math.fabs = lambda *a, **k: True\ndef mean(x): return 0", NEAR),
    "own names for builtins": ("def set(x): return 0\ndef sorted(x): return 0\ndef put_in_order(x): return []",
                               "assert set(put_in_order([2, 1])) == set([1, 2])\nassert sorted(put_in_order([2, 1])) == sorted([1, 2])\n"),
    "a module of its own": ("class sys:\n    getsizeof = staticmethod(lambda x: 0)\ndef size(x): return 0", "import sys\nassert size((1, 2)) == sys.getsizeof((1, 2))\n"),
    "the task's helper": (POLY + "    return 0.5\ndef value_at(c, x): return 0", POLY_TEST, POLY, "find_root"),
    "a number that changes": (ALWAYS % "object" + POLY + "    return Yes()", POLY_TEST, POLY, "find_root"),
    "its own check": ("def check(f): pass\ndef find_root(c): return 0", POLY_TEST, POLY, "find_root"),
    "frames": ("import sys, gc\ndef add(a, b):\n    f = sys._getframe()\n    while f:\n        for v in list(f.f_locals.values()) + list(f.f_globals.values()):\n"
               "            if type(v) is int and v == a + b: return v\n        f = f.f_back\n    return -99", "assert add(1000, 2000) == 3000\n"),
    "memory": ("import gc\ndef secret(): \n    for o in gc.get_objects():\n        if type(o) is str and 'kqz' in o and len(o) < 20: return o\n    return ''",
               "assert secret() == 'kq' + 'z-42'\n"),
    "files": ("import os, glob\ndef word():\n    for p in ['/proc/1/cmdline', '/proc/self/mem', *glob.glob('/proc/*/environ'), *glob.glob('/proc/*/fd/*'), *glob.glob('/**/*.jsonl')]:\n"
              "        try:\n            t = open(p, 'rb').read(1 << 20)\n        except Exception: continue\n"
              "        if b'quirky-' in t: return t[t.index(b'quirky-'):][:12].decode()\n    return ''", "assert word() == 'quirky-' + 'quail'\n"),
    "the verdict by hand": ("import os\nfor fd in range(64):\n    try: os.write(fd, b'passed')\n    except OSError: pass\ndef add(a, b): return 0", ADD),
    "a reply by hand": ("import os, struct\nm = b'=t4;s2;okTt0;s0;'\nfor fd in range(3, 64):\n    try: os.write(fd, (struct.pack('<Q', len(m)) + m) * 9)\n    except OSError: pass\n"
                        "def add(a, b): return 0", ADD),
    "no end of a reply": ("import os, struct\ndef add(a, b):\n    os.write(4, struct.pack('<Q', 1 << 40) + b'=')\n    os._exit(0)", ADD),
    "its side of the talk": ("import gc, types\nfor o in gc.get_objects():\n    if type(o).__name__ == 'AnswerSide':\n        o.do_call = lambda *a: True\n        o.serve = lambda *a: (5, '')\ndef add(a, b): return 0", ADD),
    "no descriptors left": ("import os\nos.closerange(0, 64)\ndef add(a, b): return 0", ADD),
    "a thread that outlives": ("import threading, time, os\ndef run():\n    while True: os.write(4, b'=')\nthreading.Thread(target=run).start()\ndef add(a, b): return 0", ADD),
    "fails to fail": ("def check_age(x):\n    import os\n    os._exit(0)", "try:\n    check_age(-1)\nexcept:\n    pass\nelse:\n    assert False\n"),
    "skips": ("import unittest\ndef add(a, b): raise unittest.SkipTest('no')",
              "import unittest\nclass T(unittest.TestCase):\n    def test_add(self): self.assertEqual(add(2, 3), 5)\nunittest.main()\n"),
    "what a callback knows": ("def apply(f, x):\n    try: return f.__globals__['wanted']\n    except Exception: pass\n    try: return f.__code__.co_consts\n    except Exception: return 0",
                              "wanted = 42\nassert apply(lambda x: 6 * x, 7) == wanted\n"),
    "tests that only define": ("def add(a, b): return 0", "def test_add():\n    assert add(2, 3) == 5\n"),
    "cases that only define": ("def add(a, b): return 0", "import unittest\nclass T(unittest.TestCase):\n    def test_add(self): self.assertEqual(add(2, 3), 5)\n"),
    "two objects that agree": (ALWAYS % "object" + "class Point(Yes):\n    def __init__(self, x): self.x = x\ndef move(p): return Point(0)", "assert move(Point(1)) == Point(2)\n"),
    "the stack": ("import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(a, b)", ADD),
    "a value without end": ("def add(a, b):\n    x = []\n    for i in range(100000): x = [x]\n    return x", ADD),
}

honest = {
    "numbers": ("def add(a, b):\n    return a + b", ADD),
    "an enumeration of ints": ("import enum\nclass N(enum.IntEnum):\n    TWO = 2\ndef f(): return N.TWO", "assert f() == 2 and f().name == 'TWO' and f() == N.TWO\n"),
    "a tuple with names": ("import collections\nP = collections.namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "assert f() == (1, 2) and f().y == 2\n"),
    "in place": ("def put_in_order(x): x.sort()", SORT),
    "in place, deep": ("def fill(m):\n    m[1][0] = 7\n    return m", "row = [0]\nm = [[1], row]\nassert fill(m) is m and m == [[1], [7]] and row == [7]\n"),
    "keys in place": ("def drop(d): d.pop('a')", "d = {'a': 1, 'b': {2}}\ndrop(d)\nassert d == {'b': {2}}\n"),
    "callbacks": ("def twice(f, x): return f(f(x))", "assert twice(lambda v: v + 3, 1) == 7\nassert twice(str, 1) == '1'\n"),
    "a callback that fails": ("def safe(f):\n    try: return f()\n    except ZeroDivisionError: return 'caught'", "assert safe(lambda: 1 // 0) == 'caught'\n"),
    "generators": ("def count(n):\n    i = n\n    while True:\n        yield i\n        i += 1", "import itertools\nassert list(itertools.islice(count(5), 3)) == [5, 6, 7]\n"),
    "iterators of the tests": ("def total(x): return sum(x)", "assert total(iter([1, 2])) == 3 and total(v for v in (4, 5)) == 9\n"),
    "classes": ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n    def pop(self): return self.items.pop()\n"
                "    def __len__(self): return len(self.items)\n    def __getitem__(self, i): return self.items[i]",
                "s = Stack()\ns.push(1)\ns.push('two')\nassert len(s) == 2 and s[0] == 1 and s.pop() == 'two' and s.items == [1]\nassert isinstance(s, Stack) and not isinstance(3, Stack)\n"
                "s.size = 4\nassert s.size == 4\n"),
    "nodes": ("class Node:\n    def __init__(self, v): self.v, self.next = v, None\ndef length(n):\n    k = 0\n    while n: n, k = n.next, k + 1\n    return k",
              "a = Node(1)\na.next = Node(2)\nassert length(a) == 2 and a.next.v == 2\n"),
    "operators": ("class V:\n    def __init__(s, *a): s.a = a\n    def __add__(s, o): return V(*[x + y for x, y in zip(s.a, o.a)])\n    def __eq__(s, o): return isinstance(o, V) and s.a == o.a",
                  "assert V(1, 2) + V(3, 4) == V(4, 6) and not V(1) == V(2) and V(1) != 1\n"),
    "classes of the tests": ("def depth(t):\n    return 0 if t is None else 1 + max(depth(t.left), depth(t.right))",
                             "class T:\n    def __init__(s, l=None, r=None): s.left, s.right = l, r\nassert depth(T(T(T()), T())) == 3\n"),
    "own errors": ("class TooOld(ValueError): pass\ndef check_age(x):\n    if x > 99: raise TooOld('too old')", "try:\n    check_age(100)\n    assert False\nexcept TooOld as e:\n    assert str(e) == 'too old'\n"),
    "exits as asked": ("import sys\ndef leave(): sys.exit(3)", "try:\n    leave()\n    assert False\nexcept SystemExit as e:\n    assert e.code == 3\n"),
    "library types": ("import collections, decimal, fractions, datetime\ndef f(): return [collections.Counter('aab'), decimal.Decimal('1.5'), fractions.Fraction(1, 3), datetime.date(2020, 1, 2)]",
                      "import collections, decimal, fractions, datetime\nassert f() == [collections.Counter('aab'), decimal.Decimal('1.5'), fractions.Fraction(1, 3), datetime.date(2020, 1, 2)]\n"),
    "what is printed": ("def hello(name): print('hello', name)", "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    hello('you')\nassert out.getvalue() == 'hello you\\n'\n"),
    "what is read": ("def ask(): return int(input('n? ')) + 1", "import builtins\nbuiltins.input = lambda prompt: '41'\nassert ask() == 42\n"),
    "standard input of its own": ("import sys\nnothing = sys.stdin.read()\ndef f(): return nothing", "assert f() == ''\n"),
    "processes": ("import os\nif os.fork() == 0:\n    raise ValueError('of the copy')\nos.wait()\nif os.fork() == 0:\n    import time\n    time.sleep(300)\n"
                  "r, w = os.pipe()\ndef f(x):\n    if os.fork() == 0:\n        os.write(w, b'%d' % (x * x))\n        os._exit(0)\n    return int(os.read(r, 9))", "assert f(3) == 9\nassert f(4) == 16\n"),
    "tests that only define": ("def add(a, b): return a + b", "import unittest\ndef test_add():\n    assert add(2, 3) == 5\n"
                               "class T(unittest.TestCase):\n    def test_add(self): self.assertEqual(add(2, 3), 5)\n"),
    "the order of sets": ("def order(words): return list(set(words))", "words = 'to be or not that is the question'.split()\nassert order(words) == list(set(words))\n"),
    "a seed": ("import random\ndef draw(): return random.randint(0, 10**9)", "import random\nrandom.seed(7)\na = draw()\nrandom.seed(7)\nassert a == random.randint(0, 10**9)\n"),
    "unittest": ("def add(a, b):\n    return a + b", "import unittest\nclass T(unittest.TestCase):\n    def test_add(self): self.assertEqual(add(2, 3), 5)\nif __name__ == '__main__': unittest.main()\n"),
    "coroutines": ("async def add(a, b): return a + b", "import asyncio\nassert asyncio.run(add(2, 3)) == 5\n"),
    "named as a builtin": ("def sum(a, b): return a + b", "assert sum(2, 3) == 5\nassert sum(1, 1) == 2\n"),
    "big and odd values": ("def same(x): return x", "nan = float('nan')\nx = same(nan)\nassert x != x and same(10**5000) == 10**5000 and same(-0.0) == 0 and same(1j) == 1j and same('\\ud800') == '\\ud800'\n"
                           "assert same(b'\\0') == b'\\0' and same(frozenset({1})) == {1} and same(range(3)) == range(3) and same(...) is ... and same({(1, 2): [None]}) == {(1, 2): [None]}\n"),
    "the prompt's helper": (POLY + "    lo, hi = -100.0, 100.0\n    best = min((abs(value_at(coefficients, k / 1000)), k / 1000) for k in range(-100000, 100001))\n    return best[1]",
                            POLY_TEST, POLY, "find_root"),
    "a program to be mended": ("def add(a, b):\n    return a + b", ADD, "def add(a, b):\n    return a - b"),
}

for name, (program, tests, *more) in (honest if sys.argv[1:] == ["honest"] else hostile).items():
    row = {"name": name, "prompt": more[0] if more else name, "completion": "```python\n%s\n```" % program if "'''" not in program else program}
    if len(more) > 1:
        row["test"], row["entry_point"] = tests, more[1]
    else:
        row["tests"] = tests
    print(json.dumps(row))
