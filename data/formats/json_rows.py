"""Rows of JSON text: one object a line, or one array, streamed; a bad row does not end the reading."""

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from trimtab.data.pair import Row, RowError

MAX_ROW_BYTES = 64 << 20
_CHUNK = 1 << 20
_BOM = codecs.BOM_UTF8


def json_rows(file: IO[bytes]) -> tuple[str, Iterator[tuple[int, Row | RowError]]]:
    """``("line", rows)`` of JSON Lines or ``("row", rows)`` of one array, told apart by the first character.

    Numbers count from one. A row that cannot be had is a RowError; after one of ``file`` nothing follows.
    """
    head = file.read(_CHUNK).removeprefix(_BOM)
    if head.lstrip()[:1] == b"[":
        return "row", _array(file, head)
    return "line", _lines(file, head)


def parse_row(raw: bytes) -> Row:
    """One row from the bytes of its line."""
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError("utf-8", f"invalid UTF-8 at byte {error.start}", raw) from error
    except json.JSONDecodeError as error:
        raise RowError(
            "json", f"bad JSON: {error.msg} at column {error.colno}; a row is one JSON object"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RowError("json", f"bad JSON: {error}") from error
    return _object(value)


def _lines(file: IO[bytes], head: bytes) -> Iterator[tuple[int, Row | RowError]]:
    rest, number = head, 0
    while True:
        end = rest.find(b"\n")
        parts, start = [], 0
        while end >= 0:
            parts.append(rest[start:end])
            start = end + 1
            end = rest.find(b"\n", start)
        rest = rest[start:]
        chunk = file.read(_CHUNK if parts else max(_CHUNK, len(rest)))
        if not chunk and rest:
            parts.append(rest)
            rest = b""
        for line in parts:
            number += 1
            if line.strip():
                try:
                    yield number, parse_row(line)
                except RowError as error:
                    yield number, error
        if not chunk:
            return
        if len(rest) > MAX_ROW_BYTES:
            yield number + 1, _too_large()
            return
        rest += chunk


def _array(file: IO[bytes], head: bytes) -> Iterator[tuple[int, Row | RowError]]:
    """Elements of one JSON array. Invalid bytes come through as lone surrogates, which reading a text refuses."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text, position, number = decode(head).lstrip()[1:], 0, 0
    ended, wants_comma = False, False
    while True:
        position = _skip(text, position, " \t\r\n")
        if position < len(text) and text[position] == "]":
            return
        at_comma = wants_comma and position < len(text)
        if at_comma and text[position] != ",":
            yield number + 1, RowError("file", f"bad JSON: no comma after row {number}; the rest was not read")
            return
        try:
            value, position = _element(text, position + at_comma)
        except IndexError:  # the text ends inside the element
            if ended:
                yield number + 1, RowError("file", "bad JSON: the array does not end; the file is cut off")
                return
            if len(text) - position > MAX_ROW_BYTES:
                yield number + 1, _too_large()
                return
            chunk = file.read(max(_CHUNK, len(text) - position))
            text, position, ended = text[position:] + decode(chunk, not chunk), 0, not chunk
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            yield number + 1, RowError("file", f"bad JSON: {reason}; the rest was not read")
            return
        else:
            number, wants_comma = number + 1, True
            try:
                yield number, _object(value)
            except RowError as error:
                yield number, error


def _element(text: str, position: int) -> tuple[Any, int]:
    """The element at ``position`` and where it ends; IndexError when the text ends too early to tell."""
    position = _skip(text, position, " \t\r\n")
    try:
        value, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        cut_off = error.msg.startswith("Unterminated string") or len(text) - error.pos < 16
        if cut_off:
            raise IndexError from error
        raise
    if end == len(text):  # a number might go on in what is not read yet
        raise IndexError
    return value, end


def _skip(text: str, position: int, what: str) -> int:
    while position < len(text) and text[position] in what:
        position += 1
    return position


def _object(value: Any) -> Row:
    if not isinstance(value, dict):
        raise RowError("json", f"got {type(value).__name__}, a row is a JSON object")
    return value


def _too_large() -> RowError:
    return RowError("file", f"a row of more than {MAX_ROW_BYTES >> 20} MiB; the rest was not read")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
