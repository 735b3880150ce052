"""The statements of every turn, compiled once.

SQLAlchemy takes ten times as long to execute a statement as SQLite does. So what it makes of one is kept (its text, how
values of each type go in and come out) and goes to SQLite's driver directly. Other databases are spoken to as ever.
"""

import functools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

Convert: TypeAlias = "Callable[[Any], Any] | None"
Rows: TypeAlias = Sequence[Sequence[Any]]

_DIALECT = sqlite.dialect(paramstyle="named")


class Statement:
    """A statement whose values are all parameters; what it returns is in the order of its columns."""

    def __init__(self, build: Callable[[str], sa.Executable]) -> None:
        self.of = functools.cache(build)
        """Return it as a dialect has it."""

    @functools.cached_property
    def compiled(self) -> "_Compiled":
        """It, for SQLite's driver."""
        statement = self.of("sqlite")
        compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]  # It can be.
        columns = statement.selected_columns if isinstance(statement, sa.Select) else ()
        return _Compiled(
            text=str(compiled),
            usual=dict(compiled.params),
            into={name: converter for name, bind in compiled.binds.items() if (converter := _into(bind.type))},
            out=[_out(column.type) for column in columns],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    text: str
    usual: Mapping[str, Any]
    """Parameters that are the statement's own."""
    into: Mapping[str, Callable[[Any], Any]]
    """How parameters become what SQLite keeps."""
    out: Sequence[Convert]
    """How columns become what they were."""

    def execute(self, connection: sqlite3.Connection, parameters: Mapping[str, Any]) -> Rows:
        """Execute it and return its rows."""
        values = {**self.usual, **parameters}
        for name, converter in self.into.items():
            values[name] = converter(values[name])
        return [self._read(row) for row in connection.execute(self.text, values)]

    def _read(self, row: Sequence[Any]) -> Sequence[Any]:
        if not any(self.out):
            return row
        return [converter(value) if converter else value for converter, value in zip(self.out, row, strict=True)]


def _into(kind: "sa.types.TypeEngine[Any]") -> Convert:
    return kind.dialect_impl(_DIALECT).bind_processor(_DIALECT)


def _out(kind: "sa.types.TypeEngine[Any]") -> Convert:
    return kind.dialect_impl(_DIALECT).result_processor(_DIALECT, None)
