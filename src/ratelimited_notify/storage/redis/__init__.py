"""Windows on Redis 7 or newer, and on Valkey: shared by processes and hosts, by the server's clock.

`sync` and `aio` hold the storages on one server; `scripts` is what they say to it, `connection` how they reach it, and the
Lua files beside them what happens there. `sentinel` and `sentinel_aio` are the same on the server that Sentinel names.

`cluster` and `cluster_aio` hold the storages on a cluster. `spread` divides a decision into questions to single slots,
`routing` gets these to the servers that `slots` says have them; none of the three does any I/O.
"""
