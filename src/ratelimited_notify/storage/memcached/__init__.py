"""Windows in memcached: all of a recipient's windows in one item, read and written by compare-and-swap.

One module a concept: `hosts` (which host has what), `record` (one item's bytes), `decide` (what is done to which
item), `protocol` (requests and replies), `failures` (what went wrong, in words), `connection` and `connection_aio`
(what is asked on which connection), `forking` (what a child does with them), and the two storages, `sync` and `aio`.
"""
