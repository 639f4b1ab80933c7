"""etcdctl's little language for transactions.

    mod("key1") > "0"              a comparison: target, key, relation, operand; the quotes may be left out
    put key2 "some value"          an operation: words, as in a shell, with the command's options

In double quotes, backslash escapes mean what they mean in Go; in single quotes, nothing is special.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from etcray.client.compare import Condition, CreateRevision, Lease, ModRevision, Value, Version

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_CONDITION: Final = re.compile(
    rf"\s*(?P<target>\w+)\s*\(\s*(?P<key>{_QUOTED}|[^)]*?)\s*\)"
    rf"\s*(?P<relation><|>|!=|=)\s*(?P<operand>{_QUOTED}|\S+)\s*"
)
_WORD: Final = re.compile(rf"\s*(?P<word>(?:{_QUOTED}|'[^']*'|[^\s\"'])+)")
_PIECE: Final = re.compile(rf"{_QUOTED}|'[^']*'|[^\"']+")
_ESCAPE: Final = re.compile(
    r"\\(?:x(?P<hex>[0-9a-fA-F]{2})|(?P<octal>[0-7]{3})|u(?P<short>[0-9a-fA-F]{4})"
    r"|U(?P<long>[0-9a-fA-F]{8})|(?P<char>.))",
    re.DOTALL,
)
_CHARACTERS: Final = {
    "a": b"\a",
    "b": b"\b",
    "f": b"\f",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "v": b"\v",
    "\\": b"\\",
    '"': b'"',
    "'": b"'",
}

_TARGETS: Final[dict[str, type[Any]]] = {
    "mod": ModRevision,
    "create": CreateRevision,
    "c": CreateRevision,
    "version": Version,
    "ver": Version,
    "value": Value,
    "val": Value,
    "lease": Lease,
}
_RELATIONS: Final[dict[str, Callable[[Any, Any], Condition]]] = {
    "=": lambda target, operand: target == operand,
    "!=": lambda target, operand: target != operand,
    "<": lambda target, operand: target < operand,
    ">": lambda target, operand: target > operand,
}


def parse_condition(line: str) -> Condition:
    """Raises ValueError, saying what is wrong."""
    match = _CONDITION.fullmatch(line)
    if match is None:
        raise ValueError('a comparison is target("key") relation "operand", as in mod("a") > "0"')
    target = _TARGETS.get(match["target"].lower())
    if target is None:
        raise ValueError(f"{match['target']} is not one of mod, create, version, value and lease")
    key = _unquote_condition(match["key"])
    operand = _unquote_condition(match["operand"])
    compare = _RELATIONS[match["relation"]]
    if target is Value:
        return compare(Value(key), operand)
    try:
        number = int(operand, 16 if target is Lease else 10)
    except ValueError as error:
        raise ValueError(f"{match['target']} is a number, {match['operand']} is not") from error
    return compare(target(key), number)


def split_operation(line: str) -> list[str]:
    """The words of an operation. Bytes that are not UTF-8 are surrogates, as in `sys.argv`."""
    words: list[str] = []
    position = 0
    line = line.strip()
    while position < len(line):
        match = _WORD.match(line, position)
        if match is None:
            raise ValueError(f"a quote is not closed at {line[position:]!r}")
        pieces = (_unquote(piece) for piece in _PIECE.findall(match["word"]))
        words.append(b"".join(pieces).decode("utf-8", "surrogateescape"))
        position = match.end()
    if not words:
        raise ValueError("an operation is get, put or del")
    return words


def _unquote_condition(text: str) -> bytes:
    return _unquote(text) if text.startswith('"') else text.encode("utf-8", "surrogateescape")


def _unquote(piece: str) -> bytes:
    if piece.startswith("'"):
        return piece[1:-1].encode("utf-8", "surrogateescape")
    if not piece.startswith('"'):
        return piece.encode("utf-8", "surrogateescape")
    text = piece[1:-1]
    parts: list[bytes] = []
    position = 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[position : match.start()].encode("utf-8", "surrogateescape"))
        parts.append(_escaped(match))
        position = match.end()
    parts.append(text[position:].encode("utf-8", "surrogateescape"))
    return b"".join(parts)


def _escaped(match: re.Match[str]) -> bytes:
    if match["hex"]:
        return bytes((int(match["hex"], 16),))
    if match["octal"]:
        return bytes((int(match["octal"], 8) & 0xFF,))
    if match["short"] or match["long"]:
        return chr(int(match["short"] or match["long"], 16)).encode("utf-8", "surrogatepass")
    known = _CHARACTERS.get(match["char"])
    if known is None:
        raise ValueError(f"\\{match['char']} is no escape")
    return known
