"""Windows in an SQLite file: exact across the threads and processes of one machine, without a server.

One module per concept: `item` (the row of one recipient), `quick` (the most frequent decision), `large` (the rows of a window
with very many hits), `stored_hits` and `numbers` (what is in them), `rows` (the SQL), `decide` (how a decision changes rows),
`schema` (the tables, and whose file it is), `place` (where the file is), `lock` (whose turn it is among processes),
`connection` (transactions), `forking` (what a fork does with connections), `failures` (error messages), `worker` (the thread
under asyncio), and the two storages, `sync` and `aio`.
"""
