"""Windows on Redis 7 or newer, and on Valkey: shared by processes and hosts, by the server's clock.

`sync` and `aio` hold the two storages; `scripts` is what they say to the server, `connection` how they reach it, and
`windows.lua` what happens there.
"""
