"""Windows in memcached: all of a recipient's windows in one item, read and written by compare-and-swap.

One module per concept: `hosts` (which host has which windows), `record` (the bytes of one item), `decide` (how a decision
changes items), `protocol` (requests and replies), `failures` (error messages), `connection` and `connection_aio`
(connections for threads and for asyncio), `forking` (what a forked child does with them), and the two storages, `sync` and
`aio`.
"""
