"""Columns of every type as samples hold them, value by value."""

import hashlib

import polars as pl
import pytest

from coldrank.data.errors import UserError
from coldrank.data.ids import as_column, hash_strings, is_text, narrow, string_id

KAFFEE = int.from_bytes(hashlib.blake2b("Kaffeeé".encode()).digest()[:8], "little", signed=True)
BYTES = int.from_bytes(hashlib.blake2b(b"\xff\x00").digest()[:8], "little", signed=True)
TEA = int.from_bytes(hashlib.blake2b(b"tea").digest()[:8], "little", signed=True)


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        (pl.Series([3, None, -4], dtype=pl.Int8), pl.Int64, [3, None, -4]),
        (pl.Series([True, None, False]), pl.Int64, [1, None, 0]),
        (pl.Series([None, None], dtype=pl.Null), pl.Int64, [None, None]),
        (pl.Series([2**64 - 1, None, 5], dtype=pl.UInt64), pl.Int64, [-1, None, 5]),
        (pl.Series([0.5, None, float("nan")]), pl.Float32, [0.5, None, None]),
        (pl.Series(["1.25", None]).cast(pl.Decimal(5, 2)), pl.Float32, [1.25, None]),
        (pl.Series(["tea", None, "Kaffeeé", "tea"]), pl.Int64, [TEA, None, KAFFEE, TEA]),
        (pl.Series([b"tea", None, "Kaffeeé".encode()]), pl.Int64, [TEA, None, KAFFEE]),
        (pl.Series([[b"tea"], None]), pl.List(pl.Int64), [[TEA], []]),
        (pl.Series([b"\xff\x00"]), pl.Int64, [BYTES]),
        (pl.Series(["tea", None], dtype=pl.Categorical), pl.Int64, [TEA, None]),
        (pl.Series([[4, None, 2], None, [], [9]]), pl.List(pl.Int64), [[4, 2], [], [], [9]]),
        (pl.Series([["tea", None], ["Kaffeeé"], [None]]), pl.List(pl.Int64), [[TEA], [KAFFEE], []]),
        (pl.Series([[2**64 - 1]], dtype=pl.List(pl.UInt64)), pl.List(pl.Int64), [[-1]]),
    ],
)
def test_columns(values: pl.Series, kind: pl.DataType, wanted: list[object]) -> None:
    column = as_column(values.alias("x"), "there")
    assert column.dtype == kind and column.to_list() == wanted


def test_lists_keep_their_order_and_rows() -> None:
    lists = [[(7 * i + k) % 11 for k in range(i % 4)] for i in range(300)]
    assert as_column(pl.Series("x", lists), "there").to_list() == lists


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pl.Series([0.5, float("inf")]), "there, row 2: inf is no finite number"),
        (pl.Series([-float("inf"), 1.0]), "there, row 1: -inf is no finite number"),
        (pl.Series([1.0, 1e39]), r"there, row 2: 1e\+39 is no finite number of 32 bits"),
        (pl.Series([[0.5], [float("inf")]]), "there, row 2: a vector with a number that is null, NaN or not finite"),
        (pl.Series([[{"a": 1}]]), r"there: type List\(Struct.*should be pairs of an id and its weight"),
        (pl.Series([{"a": 1}]), "there: type Struct.*should be an integer, a number, a string or a list"),
    ],
)
def test_other_values_are_named(values: pl.Series, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        as_column(values, "there")


def test_integers_of_128_bits_are_narrowed_where_they_fit() -> None:
    small = pl.Series([2**63 - 1, None, -(2**63)], dtype=pl.Int128)
    assert narrow(small, "there").dtype == pl.Int64 and narrow(small, "there").to_list() == [2**63 - 1, None, -(2**63)]
    large = pl.Series([2**64 - 1, None, 0], dtype=pl.Int128)
    assert narrow(large, "there").dtype == pl.UInt64 and narrow(large, "there").to_list() == [2**64 - 1, None, 0]
    plain = pl.Series([1, 2], dtype=pl.Int32)
    assert narrow(plain, "there") is plain
    for beyond in ([1, None, 2**64], [2**63, -1, None]):
        with pytest.raises(UserError, match="there, row [23]: .* does not fit 64 bits"):
            narrow(pl.Series(beyond, dtype=pl.Int128), "there")


def test_text_is_a_string_of_any_kind() -> None:
    assert [is_text(k) for k in (pl.String(), pl.Categorical(), pl.Enum(["a"]), pl.Int64())] == [
        True,
        True,
        True,
        False,
    ]
    assert hash_strings(pl.Series(["a", None], dtype=pl.Enum(["a"]))).to_list() == [string_id("a"), None]
