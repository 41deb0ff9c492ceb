"""What the judge and the answer say to each other: plain values, and numbers for objects that stay where they are.

A message is a length (8 bytes, little endian), "?" or "=" (a request, its reply) and one value. A value is a letter and
what follows it:

    N T F E        None, True, False, Ellipsis
    i HEX ;        int                                f, c   float, complex: 8 or 16 bytes
    s n, b n       str (UTF-8), bytes                 t n    tuple, frozenset (z n): n values
    r              range: 3 ints                      n NAME a builtin function or type, by its name
    l n, d n, S n  list, dict, set; m NAME, value     a mutable type of the library (and bytearray) made from a value
    k NAME, value  an unchanging one (Decimal, ...)
    a INT          the INT-th mutable value of this message, or of the request that it replies to
    o INT KIND s   an object of the writer's          O INT  an object of the reader's
    u o..., value  an instance of a subclass of a plain type, with what it is as that type

Nothing here runs code that a message names. Counts are INTs, "HEX ;". The reader trusts nothing: whatever is wrong is a
Malformed. A request names an operation (Peer.serve); its reply is ("ok" or "raise", value, what became of the request's
mutable values, printed text)."""
import builtins
import os
import struct
import sys

MESSAGE_BYTES = 1 << 26
DEPTH = 400
CONSTANTS = {b"N": None, b"T": True, b"F": False, b"E": Ellipsis}
LIBRARY = {  # name: module, does it change, what it is made from, how
    "bytearray": ("builtins", True, bytes, lambda make, s: make(s)),
    "deque": ("collections", True, lambda x: (tuple(x), x.maxlen), lambda make, s: make(*s)),
    "Counter": ("collections", True, lambda x: tuple(dict.items(x)), lambda make, s: make(dict(s))),
    "OrderedDict": ("collections", True, lambda x: tuple(x.items()), lambda make, s: make(dict(s))),
    "defaultdict": ("collections", True, lambda x: (named(x.default_factory), tuple(x.items())),
                    lambda make, s: make(named(s[0]), s[1])),
    "Decimal": ("decimal", False, str, lambda make, s: make(s)),
    "Fraction": ("fractions", False, lambda x: (x.numerator, x.denominator), lambda make, s: make(*s)),
    "datetime": ("datetime", False,
                 lambda x: (x.year, x.month, x.day, x.hour, x.minute, x.second, x.microsecond, x.utcoffset()),
                 lambda make, s: make(*s[:7], s[7] if s[7] is None else sys.modules["datetime"].timezone(s[7]))),
    "date": ("datetime", False, lambda x: (x.year, x.month, x.day), lambda make, s: make(*s)),
    "time": ("datetime", False, lambda x: (x.hour, x.minute, x.second, x.microsecond), lambda make, s: make(*s)),
    "timedelta": ("datetime", False, lambda x: (x.days, x.seconds, x.microseconds), lambda make, s: make(*s)),
    "slice": ("builtins", False, lambda x: (x.start, x.stop, x.step), lambda make, s: make(*s)),
}
PLAIN = (int, float, complex, str, bytes, tuple, frozenset, list, dict, set)
KEPT = set("open eval exec compile input print breakpoint vars globals locals getattr setattr delattr help exit quit "
           "copyright credits license memoryview super dir".split())
HARMLESS = frozenset(n for n in dir(builtins) if n[0] != "_" and n not in KEPT)


class Malformed(Exception):
    """A message that no honest peer writes."""


class Gone(BaseException):
    """The other side has ended."""


def library(t):
    """The entry of a type of the library; it is imported where it is used."""
    entry = LIBRARY.get(t.__name__)
    if entry is None or t.__module__ != entry[0] or getattr(sys.modules.get(entry[0]), t.__name__, None) is not t:
        return None
    return entry


def by_name(x):
    """Is it a builtin function or type that the other side has as well?"""
    return type(x) in (type, type(len)) and x.__name__ in HARMLESS and builtins.__dict__.get(x.__name__) is x


def named(x):
    return x if by_name(x) else None


def contents(x):
    """A mutable value as a tuple."""
    t = type(x)
    if t is bytearray:
        return tuple(x)
    return tuple((k, v) for k, v in dict.items(x)) if isinstance(x, dict) else tuple(x)


def same(before, now):
    """Nothing was replaced: by identity, so that no method of an object decides. The items of a dict are pairs."""
    def equal(a, b):
        return a is b or (type(a) is type(b) is tuple and len(a) == len(b) == 2 and a[0] is b[0] and a[1] is b[1])
    return len(before) == len(now) and all(map(equal, before, now))


def refill(x, new):
    t = type(x)
    if t is list or t is bytearray:
        x[:] = new
    elif isinstance(x, (dict, set)):
        x.clear()
        (dict.update if isinstance(x, dict) else set.update)(x, new)
    else:
        x.clear()
        x.extend(new)


class Writer:
    def __init__(self, peer, mutable=()):
        self.peer = peer
        self.parts = []
        self.mutable = list(mutable)
        self.seen = {id(x): i for i, x in enumerate(self.mutable)}

    def count(self, n):
        self.parts.append(b"%x;" % n)

    def text(self, s):
        data = str.encode(s, "utf-8", "surrogatepass")
        self.count(len(data))
        self.parts.append(data)

    def many(self, letter, items, n, depth):
        self.parts.append(letter)
        self.count(n)
        for item in items:
            self.put(item, depth + 1)

    def remember(self, x):
        """False: it was written before, and a reference stands for it."""
        i = self.seen.get(id(x))
        if i is not None:
            self.parts.append(b"a")
            self.count(i)
            return False
        self.seen[id(x)] = len(self.mutable)
        self.mutable.append(x)
        return True

    def put(self, x, depth=0):
        t = type(x)
        parts = self.parts
        if depth > DEPTH:
            raise RecursionError("a value is nested too deeply to be handed over")
        if t is int:
            parts.append(b"i%x;" % x)
        elif t is str:
            parts.append(b"s")
            self.text(x)
        elif x is None or x is True or x is False or x is Ellipsis:
            parts.append(b"N" if x is None else b"T" if x is True else b"F" if x is False else b"E")
        elif t is float:
            parts.append(b"f" + struct.pack("<d", x))
        elif t is list:
            if self.remember(x):
                self.many(b"l", x, len(x), depth)
        elif t is tuple:
            self.many(b"t", x, len(x), depth)
        elif t is dict:
            if self.remember(x):
                self.many(b"d", (y for item in x.items() for y in item), len(x), depth)
        elif t is set:
            if self.remember(x):
                self.many(b"S", x, len(x), depth)
        elif t is frozenset:
            self.many(b"z", x, len(x), depth)
        elif t is bytes:
            parts.append(b"b")
            self.count(len(x))
            parts.append(x)
        elif t is complex:
            parts.append(b"c" + struct.pack("<dd", x.real, x.imag))
        elif t is range:
            parts.append(b"r")
            for n in (x.start, x.stop, x.step):
                self.put(n, depth + 1)
        elif by_name(x):
            parts.append(b"n")
            self.text(x.__name__)
        elif library(t) and getattr(x, "tzinfo", None) is None or t.__name__ == "datetime" and library(t):
            module, changes, state, make = library(t)
            if not changes or self.remember(x):
                parts.append(b"m" if changes else b"k")
                self.text(t.__name__)
                self.put(state(x), depth + 1)
        else:
            self.peer.put_object(self, x, depth)

    def put_own(self, number, kind, name):
        self.parts.append(b"o")
        self.count(number)
        self.parts.append(kind)
        self.text(name)

    def put_theirs(self, number):
        self.parts.append(b"O")
        self.count(number)


class Reader:
    def __init__(self, peer, data, mutable=()):
        self.peer = peer
        self.data = data
        self.at = 0
        self.mutable = list(mutable)

    def take(self, n):
        at = self.at
        if n > len(self.data) - at:
            raise Malformed("a value is cut")
        self.at = at + n
        return self.data[at:at + n]

    def whole(self):
        end = self.data.find(b";", self.at)
        digits = self.data[self.at:end] if end >= 0 else b""
        if not digits or digits.strip(b"0123456789abcdef-") or digits.find(b"-", 1) > 0 or digits == b"-":
            raise Malformed("a number is no number")
        self.at = end + 1
        return int(digits, 16)

    def count(self):
        n = self.whole()
        if n < 0 or n > len(self.data):
            raise Malformed("a count is beyond the message")
        return n

    def text(self):
        return self.take(self.count()).decode("utf-8", "surrogatepass")

    def items(self, n, depth):
        return [self.get(depth + 1) for _ in range(n)]

    def keep(self, x):
        self.mutable.append(x)
        return x

    def get(self, depth=0):
        if depth > DEPTH:
            raise Malformed("a value is nested too deeply")
        letter = self.take(1)
        if letter == b"i":
            return self.whole()
        if letter == b"s":
            return self.text()
        if letter in CONSTANTS:
            return CONSTANTS[letter]
        if letter == b"f":
            return struct.unpack("<d", self.take(8))[0]
        if letter == b"l":
            x, n = self.keep([]), self.count()
            x.extend(self.items(n, depth))
            return x
        if letter == b"t":
            return tuple(self.items(self.count(), depth))
        if letter == b"d":
            x, n = self.keep({}), self.count()
            for _ in range(n):
                key = self.get(depth + 1)
                x[key] = self.get(depth + 1)
            return x
        if letter == b"S":
            x, n = self.keep(set()), self.count()
            x.update(self.items(n, depth))
            return x
        if letter == b"z":
            return frozenset(self.items(self.count(), depth))
        if letter == b"b":
            return bytes(self.take(self.count()))
        if letter == b"c":
            return complex(*struct.unpack("<dd", self.take(16)))
        if letter == b"r":
            return range(*[self.get(depth + 1) for _ in range(3)])
        if letter == b"a":
            i = self.count()
            if i >= len(self.mutable) or self.mutable[i] is None:
                raise Malformed("a reference to nothing")
            return self.mutable[i]
        if letter == b"n":
            name = self.text()
            if name not in HARMLESS:
                raise Malformed("not a builtin's name")
            return builtins.__dict__[name]
        if letter == b"k":
            return self.library(False, depth)
        if letter == b"m":
            i = len(self.mutable)
            self.mutable.append(None)
            self.mutable[i] = self.library(True, depth)
            return self.mutable[i]
        if letter in b"oOu":
            return self.peer.get_object(self, letter, depth)
        raise Malformed("not a value")

    def library(self, changes, depth):
        name = self.text()
        module, is_mutable, _, make = LIBRARY.get(name, (None, None, None, None))
        if is_mutable is not changes:
            raise Malformed("not a type of the library")
        return make(getattr(__import__(module), name), self.get(depth + 1))


class Peer:
    """One side. A subclass says what objects are to it (put_object, get_object), what it does (serve), how errors go."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.own, self.numbers = {}, {}
        self.forked = False  # a copy of the process has nobody to talk to

    def number(self, x):
        """Of an object that stays here: the same for the same object, which is kept alive."""
        n = self.numbers.get(id(x))
        if n is None:
            n = self.numbers[id(x)] = len(self.own) + 1
            self.own[n] = x
        return n

    def send(self, kind, payload):
        data = struct.pack("<Q", len(payload) + 1) + kind + payload
        try:
            while data:
                data = data[os.write(self.sink, data):]
        except OSError:
            raise Gone() from None

    def read(self, n):
        parts = []
        while n:
            part = os.read(self.source, min(n, 1 << 20))
            if not part:
                raise Gone()
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def receive(self):
        n = struct.unpack("<Q", self.read(8))[0]
        if n < 1 or n > MESSAGE_BYTES:
            raise Malformed("a message of %d bytes" % n)
        data = self.read(n)
        return data[:1], data[1:]

    def ask(self, *request):
        w = Writer(self)
        w.put(request)
        self.send(b"?", b"".join(w.parts))
        while True:
            kind, data = self.receive()
            if kind == b"?":
                self.answer(data)
                continue
            if kind != b"=":
                raise Malformed("neither a request nor a reply")
            try:
                outcome, value, changes, printed = Reader(self, data, w.mutable).get()
                for i, new in changes:
                    refill(w.mutable[i], new)
            except Exception as e:
                raise Malformed("no reply (%s)" % e) from None
            self.printed(printed)
            if outcome != "ok":
                raise self.error(value)
            return value

    def answer(self, data):
        r = Reader(self, data)
        request = r.get()
        before = [contents(x) for x in r.mutable]
        outcome, printed = "ok", ""
        try:
            value, printed = self.serve(*request)
        except (Gone, Malformed):
            raise
        except BaseException as e:
            if self.forked:
                raise
            outcome, value = "raise", self.describe(e)
        now = [contents(x) for x in r.mutable]
        changes = tuple((i, new) for i, new in enumerate(now) if not same(before[i], new))
        try:
            self.send(b"=", self.reply(r.mutable, (outcome, value, changes, printed)))
        except (RecursionError, ValueError, OverflowError) as e:
            self.send(b"=", self.reply(r.mutable, ("raise", self.describe(e), (), printed)))

    def reply(self, mutable, value):
        w = Writer(self, mutable)
        w.put(value)
        data = b"".join(w.parts)
        if len(data) >= MESSAGE_BYTES:
            raise OverflowError("a value is too large to be handed over")
        return data

    def printed(self, text):
        pass
