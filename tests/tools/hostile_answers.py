#!/usr/bin/env python3
"""Answers that do not solve their task and want to pass all the same, as rows for `plm score --scorer tests`: each must score 0. With "honest"
as argument: answers that do solve theirs in ways that pass objects to and fro, each must score 1."""
import json
import sys

ADD = """assert add(2, 3) == 5
assert add(-1, 1) == 0
assert add(10, 20) == 30
"""
SORT = """xs = [3, 1, 2]
put_in_order(xs)
assert xs == [1, 2, 3]
"""
NEAR = """import math
assert math.isclose(mean([1, 2]), 1.5)
assert abs(mean([2, 4]) - 3) < 1e-6
"""
POLY = '''import math


def value_at(coefficients, x):
    return sum(c * math.pow(x, i) for i, c in enumerate(coefficients))


def find_root(coefficients):
    """A root of the polynomial."""
'''
POLY_TEST = """def check(candidate):
    for c in ([-4, 2], [6, 3], [-1, 0, 1]):
        assert abs(value_at(c, candidate(list(c)))) < 1e-4
"""
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
    "exit status 0": ("""import os
os._exit(0)""", ADD),
    "exit": ("""import sys
sys.exit(0)""", ADD),
    "exit when called": ("""import sys
def add(a, b): sys.exit(0)""", ADD),
    "exit when called, status None": ("def add(a, b): raise SystemExit", ADD),
    "kills itself when called": ("""import os
def add(a, b): os.kill(os.getpid(), 9)""", ADD),
    "leaves by an exception that nobody catches": ("def add(a, b): raise KeyboardInterrupt", ADD),
    "atexit": ("""import atexit, os
atexit.register(lambda: os._exit(0))
def add(a, b): return 0""", ADD),
    "exception hook": ("""import sys, os
sys.excepthook = lambda *a: os._exit(0)
def add(a, b): return 0""", ADD),
    "no assertions": ("""import builtins
builtins.AssertionError = type('A', (Exception,), {})
__debug__ and None
def add(a, b): return 0""", ADD),
    "trace": ("""import sys
sys.settrace(lambda *a: None)
sys.setprofile(lambda *a: None)
def add(a, b): return 0""", ADD),
    "agrees": (ALWAYS % "object" + "def add(a, b): return Yes()", ADD),
    "an int that agrees": (ALWAYS % "int" + "def add(a, b): return Yes(0)", ADD),
    "a str that agrees": (ALWAYS % "str" + "def twice(s): return Yes('x')", """assert twice('a') == 'aa'
assert 'aa' == twice('a')
"""),
    "a list that agrees": (ALWAYS % "list" + "def put_in_order(x): return Yes()",
                          """assert put_in_order([2, 1]) == [1, 2]
"""),
    "a list of what agrees": (ALWAYS % "object" + "def put_in_order(x): return [Yes(), Yes()]",
                              """assert put_in_order([2, 1]) == [1, 2]
"""),
    "a tuple that agrees": (ALWAYS % "tuple" + "def pair(x): return Yes()", """assert pair(2) == (2, 2)
assert pair(2) in [(2, 2)]
"""),
    "a dict that agrees": (ALWAYS % "dict" + "def count(x): return Yes()", """assert count('aab') == {'a': 2, 'b': 1}
"""),
    "a member of every set": (ALWAYS % "object" + "def add(a, b): return Yes()", """assert add(2, 3) in {5}
assert add(2, 3) in [5]
"""),
    "holds everything": (ALWAYS % "object" + "def primes(n): return Yes()", """assert 7 in primes(10)
"""),
    "as near as wanted": (ALWAYS % "object" + "def mean(x): return Yes()", NEAR),
    "a float as near as wanted": (ALWAYS % "float" + "def mean(x): return Yes(9)", NEAR),
    "a class as the function": (ALWAYS % "object" + "add = Yes = type('Yes', (), dict(vars(Yes), __init__=lambda *a: None))",
                                ADD),
    "agrees by its metaclass": ("""class M(type):
    def __eq__(s, o): return True
    __hash__ = type.__hash__
class Y(metaclass=M): pass
def add(a, b): return Y""", ADD),
    "agrees as another": (ALWAYS % "object" + """class Yes(Yes): __class__ = property(lambda s: int)
def add(a, b): return Yes()""", ADD),
    "NotImplemented": ("def add(a, b): return NotImplemented", ADD),
    "patched builtins": ("""import builtins
builtins.len = builtins.sorted = builtins.sum = builtins.abs = lambda *a, **k: 0
builtins.all = builtins.any = lambda *a: True
def put_in_order(x): return x""", """assert sorted([2, 1]) == put_in_order([2, 1])
assert len(put_in_order([1])) == 1
"""),
    "patched math": ("""import math, cmath
math.isclose = math.fabs = lambda *a, **k: True
def mean(x): return 0""", NEAR),
    "own names for builtins": ("""def set(x): return 0
def sorted(x): return 0
def put_in_order(x): return []""",
                               """assert set(put_in_order([2, 1])) == set([1, 2])
assert sorted(put_in_order([2, 1])) == sorted([1, 2])
"""),
    "a module of its own": ("""class sys:
    getsizeof = staticmethod(lambda x: 0)
def size(x): return 0""", """import sys
assert size((1, 2)) == sys.getsizeof((1, 2))
"""),
    "the task's helper": (POLY + """    return 0.5
def value_at(c, x): return 0""", POLY_TEST, POLY, "find_root"),
    "a number that changes": (ALWAYS % "object" + POLY + "    return Yes()", POLY_TEST, POLY, "find_root"),
    "its own check": ("""def check(f): pass
def find_root(c): return 0""", POLY_TEST, POLY, "find_root"),
    "frames": ("""import sys, gc
def add(a, b):
    f = sys._getframe()
    while f:
        for v in list(f.f_locals.values()) + list(f.f_globals.values()):
            if type(v) is int and v == a + b: return v
        f = f.f_back
    return -99""", """assert add(1000, 2000) == 3000
"""),
    "memory": ("""import gc
def secret(): 
    for o in gc.get_objects():
        if type(o) is str and 'kqz' in o and len(o) < 20: return o
    return ''""",
               """assert secret() == 'kq' + 'z-42'
"""),
    "files": ("""import os, glob
def word():
    for p in ['/proc/1/cmdline', '/proc/self/mem', *glob.glob('/proc/*/environ'),
              *glob.glob('/proc/*/fd/*'), *glob.glob('/**/*.jsonl')]:
        try:
            t = open(p, 'rb').read(1 << 20)
        except Exception: continue
        if b'quirky-' in t: return t[t.index(b'quirky-'):][:12].decode()
    return ''""", """assert word() == 'quirky-' + 'quail'
"""),
    "the verdict by hand": ("""import os
for fd in range(64):
    try: os.write(fd, b'passed')
    except OSError: pass
def add(a, b): return 0""", ADD),
    "a reply by hand": ("""import os, struct
m = b'=t4;s2;okTt0;s0;'
for fd in range(3, 64):
    try: os.write(fd, (struct.pack('<Q', len(m)) + m) * 9)
    except OSError: pass
def add(a, b): return 0""", ADD),
    "no end of a reply": ("""import os, struct
def add(a, b):
    os.write(4, struct.pack('<Q', 1 << 40) + b'=')
    os._exit(0)""", ADD),
    "its side of the talk": ("""import gc, types
for o in gc.get_objects():
    if type(o).__name__ == 'AnswerSide':
        o.do_call = lambda *a: True
        o.serve = lambda *a: (5, '')
def add(a, b): return 0""", ADD),
    "no descriptors left": ("""import os
os.closerange(0, 64)
def add(a, b): return 0""", ADD),
    "a thread that outlives": ("""import threading, time, os
def run():
    while True: os.write(4, b'=')
threading.Thread(target=run).start()
def add(a, b): return 0""", ADD),
    "fails to fail": ("""def check_age(x):
    import os
    os._exit(0)""", """try:
    check_age(-1)
except:
    pass
else:
    assert False
"""),
    "skips": ("""import unittest
def add(a, b): raise unittest.SkipTest('no')""",
              """import unittest
class T(unittest.TestCase):
    def test_add(self): self.assertEqual(add(2, 3), 5)
unittest.main()
"""),
    "what a callback knows": ("""def apply(f, x):
    try: return f.__globals__['wanted']
    except Exception: pass
    try: return f.__code__.co_consts
    except Exception: return 0""",
                              """wanted = 42
assert apply(lambda x: 6 * x, 7) == wanted
"""),
    "tests that only define": ("def add(a, b): return 0", """def test_add():
    assert add(2, 3) == 5
"""),
    "cases that only define": ("def add(a, b): return 0", """import unittest
class T(unittest.TestCase):
    def test_add(self): self.assertEqual(add(2, 3), 5)
"""),
    "two objects that agree": (ALWAYS % "object" + """class Point(Yes):
    def __init__(self, x): self.x = x
def move(p): return Point(0)""", """assert move(Point(1)) == Point(2)
"""),
    "the stack": ("""import sys
sys.setrecursionlimit(10**9)
def add(a, b): return add(a, b)""", ADD),
    "a value without end": ("""def add(a, b):
    x = []
    for i in range(100000): x = [x]
    return x""", ADD),
}

honest = {
    "numbers": ("""def add(a, b):
    return a + b""", ADD),
    "an enumeration of ints": ("""import enum
class N(enum.IntEnum):
    TWO = 2
def f(): return N.TWO""", """assert f() == 2 and f().name == 'TWO' and f() == N.TWO
"""),
    "a tuple with names": ("""import collections
P = collections.namedtuple('P', 'x y')
def f(): return P(1, 2)""", """assert f() == (1, 2) and f().y == 2
"""),
    "in place": ("def put_in_order(x): x.sort()", SORT),
    "in place, deep": ("""def fill(m):
    m[1][0] = 7
    return m""", """row = [0]
m = [[1], row]
assert fill(m) is m and m == [[1], [7]] and row == [7]
"""),
    "keys in place": ("def drop(d): d.pop('a')", """d = {'a': 1, 'b': {2}}
drop(d)
assert d == {'b': {2}}
"""),
    "callbacks": ("def twice(f, x): return f(f(x))", """assert twice(lambda v: v + 3, 1) == 7
assert twice(str, 1) == '1'
"""),
    "a callback that fails": ("""def safe(f):
    try: return f()
    except ZeroDivisionError: return 'caught'""", """assert safe(lambda: 1 // 0) == 'caught'
"""),
    "generators": ("""def count(n):
    i = n
    while True:
        yield i
        i += 1""", """import itertools
assert list(itertools.islice(count(5), 3)) == [5, 6, 7]
"""),
    "iterators of the tests": ("def total(x): return sum(x)",
                               """assert total(iter([1, 2])) == 3 and total(v for v in (4, 5)) == 9
"""),
    "classes": ("""class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]""",
                """s = Stack()
s.push(1)
s.push('two')
assert len(s) == 2 and s[0] == 1 and s.pop() == 'two' and s.items == [1]
assert isinstance(s, Stack) and not isinstance(3, Stack)
s.size = 4
assert s.size == 4
"""),
    "nodes": ("""class Node:
    def __init__(self, v): self.v, self.next = v, None
def length(n):
    k = 0
    while n: n, k = n.next, k + 1
    return k""",
              """a = Node(1)
a.next = Node(2)
assert length(a) == 2 and a.next.v == 2
"""),
    "operators": ("""class V:
    def __init__(s, *a): s.a = a
    def __add__(s, o): return V(*[x + y for x, y in zip(s.a, o.a)])
    def __eq__(s, o): return isinstance(o, V) and s.a == o.a""",
                  """assert V(1, 2) + V(3, 4) == V(4, 6) and not V(1) == V(2) and V(1) != 1
"""),
    "classes of the tests": ("""def depth(t):
    return 0 if t is None else 1 + max(depth(t.left), depth(t.right))""",
                             """class T:
    def __init__(s, l=None, r=None): s.left, s.right = l, r
assert depth(T(T(T()), T())) == 3
"""),
    "own errors": ("""class TooOld(ValueError): pass
def check_age(x):
    if x > 99: raise TooOld('too old')""", """try:
    check_age(100)
    assert False
except TooOld as e:
    assert str(e) == 'too old'
"""),
    "exits as asked": ("""import sys
def leave(): sys.exit(3)""", """try:
    leave()
    assert False
except SystemExit as e:
    assert e.code == 3
"""),
    "library types": ("""import collections, decimal, fractions, datetime
def f():
    return [collections.Counter('aab'), decimal.Decimal('1.5'), fractions.Fraction(1, 3), datetime.date(2020, 1, 2)]""",
                      """import collections, decimal, fractions, datetime
assert f() == [collections.Counter('aab'), decimal.Decimal('1.5'), fractions.Fraction(1, 3), datetime.date(2020, 1, 2)]
"""),
    "what is printed": ("def hello(name): print('hello', name)", """import io, contextlib
out = io.StringIO()
with contextlib.redirect_stdout(out):
    hello('you')
assert out.getvalue() == 'hello you\\n'
"""),
    "what is read": ("def ask(): return int(input('n? ')) + 1", """import builtins
builtins.input = lambda prompt: '41'
assert ask() == 42
"""),
    "standard input of its own": ("""import sys
nothing = sys.stdin.read()
def f(): return nothing""", """assert f() == ''
"""),
    "processes": ("""import os
if os.fork() == 0:
    raise ValueError('of the copy')
os.wait()
if os.fork() == 0:
    import time
    time.sleep(300)
r, w = os.pipe()
def f(x):
    if os.fork() == 0:
        os.write(w, b'%d' % (x * x))
        os._exit(0)
    return int(os.read(r, 9))""", """assert f(3) == 9
assert f(4) == 16
"""),
    "tests that only define": ("def add(a, b): return a + b", """import unittest
def test_add():
    assert add(2, 3) == 5
class T(unittest.TestCase):
    def test_add(self): self.assertEqual(add(2, 3), 5)
"""),
    "the order of sets": ("def order(words): return list(set(words))",
                          """words = 'to be or not that is the question'.split()
assert order(words) == list(set(words))
"""),
    "a seed": ("""import random
def draw(): return random.randint(0, 10**9)""", """import random
random.seed(7)
a = draw()
random.seed(7)
assert a == random.randint(0, 10**9)
"""),
    "unittest": ("""def add(a, b):
    return a + b""", """import unittest
class T(unittest.TestCase):
    def test_add(self): self.assertEqual(add(2, 3), 5)
if __name__ == '__main__': unittest.main()
"""),
    "coroutines": ("async def add(a, b): return a + b", """import asyncio
assert asyncio.run(add(2, 3)) == 5
"""),
    "named as a builtin": ("def sum(a, b): return a + b", """assert sum(2, 3) == 5
assert sum(1, 1) == 2
"""),
    "big and odd values": ("def same(x): return x", """nan = float('nan')
x = same(nan)
assert x != x and same(10**5000) == 10**5000 and same(-0.0) == 0 and same(1j) == 1j and same('\\ud800') == '\\ud800'
assert same(b'\\0') == b'\\0' and same(frozenset({1})) == {1} and same(range(3)) == range(3)
assert same(...) is ... and same({(1, 2): [None]}) == {(1, 2): [None]}
"""),
    "the prompt's helper": (POLY + """    lo, hi = -100.0, 100.0
    best = min((abs(value_at(coefficients, k / 1000)), k / 1000) for k in range(-100000, 100001))
    return best[1]""",
                            POLY_TEST, POLY, "find_root"),
    "a program to be mended": ("""def add(a, b):
    return a + b""", ADD, """def add(a, b):
    return a - b"""),
}

for name, (program, tests, *more) in (honest if sys.argv[1:] == ["honest"] else hostile).items():
    row = {"name": name, "prompt": more[0] if more else name, "completion": "```python\n%s\n```" % program}
    if len(more) > 1:
        row["test"], row["entry_point"] = tests, more[1]
    else:
        row["tests"] = tests
    print(json.dumps(row))
