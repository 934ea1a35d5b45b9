"""Rules in the tables of a database, by SQLAlchemy.

`source` is the source. `database` makes connections, `kept` keeps one of them, `deadline` bounds how long it may take. `reading` reads
the tables, `rows` makes a document of what is in them, `failures` says what went wrong. `postgresql` and `sqlite` are what is special
about the two. `tables` and `schema` make the tables, `writing` writes a document into them.
"""

from __future__ import annotations

from importlib import import_module

from ratelimited_notify.errors import MissingExtra

try:
    # Said here once for all modules of this package.
    import_module("sqlalchemy")
except ImportError:
    raise MissingExtra("sql", "A source of rules in a database") from None
