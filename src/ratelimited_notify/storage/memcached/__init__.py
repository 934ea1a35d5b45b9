"""Windows in memcached: all of a recipient's windows in one item, read and written by compare-and-swap.

One module a concept: `hosts` (which host has what), `record` (one item's bytes), `decide` (what is done to which
item), `failures` (what went wrong, in words), `connection` (memcached's protocol for asyncio), and the two storages,
`sync` and `aio`.
"""
