"""Windows on Redis 7 or newer, and on Valkey: shared by processes and hosts, by the server's clock.

`sync` and `aio` are the storages on one server. `scripts` builds the commands, `connection` and `multiplexed` send them, and the
Lua files beside them run on the server. `sentinel` and `sentinel_aio` do the same on the server that Sentinel names as master.

`cluster` and `cluster_aio` are the storages on a cluster. `spread` divides a decision into script calls, each for one slot.
`routing` assigns them to the servers that have the slots, according to `slots`. None of the three does any I/O.
"""
