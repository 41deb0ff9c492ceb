#!/usr/bin/env python3
"""test_plain_values.py PLAIN.py: values pass between judge and answer as they are; damaged messages are refused."""
import collections
import datetime
import decimal
import fractions
import random
import sys

scope = {"__name__": "plain"}
with open(sys.argv[1], encoding="utf-8") as f:
    exec(compile(f.read(), sys.argv[1], "exec"), scope)
Writer, Reader = scope["Writer"], scope["Reader"]


class Side:
    """Objects are not what is tried here: a number goes there and comes back."""

    def put_object(self, w, x, depth):
        w.put_own(7, b"o", "thing")

    def get_object(self, r, letter, depth):
        return r.count(), r.take(1), r.text()


def write(x):
    w = Writer(Side())
    w.put(x)
    return b"".join(w.parts)


def read(data):
    r = Reader(Side(), data)
    x = r.get()
    assert r.at == len(data), "something is left"
    return x


def value(rng, depth=0):
    leaves = [None, True, False, ..., 0, -1, 10 ** 40, -(2 ** 70), 1.5, float("inf"), -0.0, 2j, "", "aé\ud800\0", b"\0\xff",
              range(1, 9, 3), len, int, decimal.Decimal("1.50"), fractions.Fraction(-1, 3), datetime.date(2020, 2, 29),
              datetime.timedelta(1, 2, 3), slice(1, None), datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.time(1, 2),
              datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)]
    if depth > 3 or rng.random() < 0.4:
        return rng.choice(leaves)
    items = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = [rng.choice([1, "k", None, (1, 2), b"x", frozenset({3})]) for _ in items]
    return rng.choice([items, tuple(items), dict(zip(keys, items)), set(keys), frozenset(keys), collections.deque(items, 9),
                       bytearray(b"ab"), collections.Counter("abca"), collections.OrderedDict(zip(keys, items)),
                       collections.defaultdict(list, {1: items})])


def shape(x):
    """A value as a text that tells types apart and knows no order of sets."""
    if isinstance(x, (set, frozenset)):
        return type(x).__name__ + repr(sorted(map(shape, x)))
    if isinstance(x, dict):
        return type(x).__name__ + repr([(shape(k), shape(v)) for k, v in x.items()])
    if isinstance(x, (list, tuple, collections.deque)):
        return type(x).__name__ + repr(list(map(shape, x)))
    return repr(x)


rng = random.Random(1)
messages = []
for _ in range(2000):
    x = value(rng)
    data = write(x)
    messages.append(data)
    y = read(data)
    assert shape(x) == shape(y), (x, y)

shared = [1]
a = read(write([shared, shared, {"k": shared}]))
assert a[0] is a[1] and a[2]["k"] is a[0]
loop = [1]
loop.append(loop)
b = read(write(loop))
assert b[1] is b
deep = []
for _ in range(100000):
    deep = [deep]
try:
    write(deep)
    raise SystemExit("a value of any depth was written")
except RecursionError:
    pass

LETTERS = b"NTFEifcsbtzrnldSmkaoOu;0123456789abcdef-\0\xff"
refused = 0
for i in range(40000):
    data = bytearray(rng.choice(messages))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        data[at:at + rng.randrange(3)] = bytes(rng.choice(LETTERS) for _ in range(rng.randrange(3)))
    try:
        read(bytes(data))
    except (SystemExit, KeyboardInterrupt):
        raise
    except Exception:
        refused += 1
assert refused > 10000, refused
for data in (b"l" + b"f" * 15 + b";", b"i" + b"f" * 40 + b"x;", b"t-1;", b"i;", b"a0;", b"n4;open", b"k2;oss0;", b"l1;" * 100000,
             b"s3;ab"):
    try:
        read(data)
        raise SystemExit("read %r" % data[:40])
    except (scope["Malformed"], AssertionError, RecursionError):
        pass
print("plain values: 2000 round trips, %d of 40000 damaged messages refused" % refused)
