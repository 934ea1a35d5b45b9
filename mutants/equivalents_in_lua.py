"""Faults in the scripts for Redis that change nothing that a test could see, each with the reason."""

from __future__ import annotations

from equivalents_in_moving import IN_MOVING_WINDOWS

_IN_OTHERS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "begin",
        "On the servers of the tests both formats write the same.",
        "local whole = format('%d', 2 ^ 52) == '4503599627370496' and '%d' or '%.0f'",
        (
            "local whole = format('%d', 3 ^ 52) == '4503599627370496' and '%d' or '%.0f'",
            "local whole = format('%d', (1) ^ 52) == '4503599627370496' and '%d' or '%.0f'",
            "local whole = format('%d', 2 ^ 53) == '4503599627370496' and '%d' or '%.0f'",
            "local whole = format('%d', 2 ^ (51)) == '4503599627370496' and '%d' or '%.0f'",
            "local whole = format('%d', 2 ^ 52) ~= '4503599627370496' and '%d' or '%.0f'",
            "local whole = format('%d', 2 ^ 52) == '4503599627370496' and '%d' and '%.0f'",
        ),
    ),
    (
        "begin",
        "Any number below 0x070000 says that the server is not Redis 7.",
        "if (redis.REDIS_VERSION_NUM or 0) < 0x070000 then",
        (
            "if (redis.REDIS_VERSION_NUM or 1) < 0x070000 then",
            "if (redis.REDIS_VERSION_NUM or (-1)) < 0x070000 then",
        ),
    ),
    (
        "begin",
        "A key may live a millisecond longer or less after nothing in it counts.",
        "text = format(whole, left / 1000 + 2000)",
        (
            "text = format(whole, left / 1000 + 2001)",
            "text = format(whole, left / 1000 + (1999))",
        ),
    ),
    ("begin", "The text is kept only to save time.", "lives[left] = text", ("",)),
    (
        "begin",
        "It is set before a key is read.",
        "local place = 0",
        (
            "local place = 1",
            "local place = (-1)",
        ),
    ),
    ("fixed", "No level below 1 adds a place to the message.", "error('ODD', 0)", ("error('ODD', (-1))",)),
    ("pause", "No level below 1 adds a place to the message.", "error('ODD', 0)", ("error('ODD', (-1))",)),
    ("sliding", "No level below 1 adds a place to the message.", "error('ODD', 0)", ("error('ODD', (-1))",)),
    (
        "pause",
        "`take_nothing` uses none of what was read but the count.",
        "return 0, 0, now, 0, 0, 0",
        (
            "return 0, 0, now, 1, 0, 0",
            "return 0, 0, now, (-1), 0, 0",
            "return 0, 0, now, 0, 1, 0",
            "return 0, 0, now, 0, (-1), 0",
            "return 0, 0, now, 0, 0, 1",
            "return 0, 0, now, 0, 0, (-1)",
        ),
    ),
    (
        "pause",
        "`take_nothing` uses none of what was read but the count.",
        "return 1, ends, ends, 0, 0, 0",
        (
            "return 1, ends, ends, 1, 0, 0",
            "return 1, ends, ends, (-1), 0, 0",
            "return 1, ends, ends, 0, 1, 0",
            "return 1, ends, ends, 0, (-1), 0",
            "return 1, ends, ends, 0, 0, 1",
            "return 1, ends, ends, 0, 0, (-1)",
        ),
    ),
    ("pause", "A hit that is not counted has no sequence.", "return count, now, -1, 0", ("return count, now, -1, 1",)),
    (
        "pause",
        "Every time of a server is later.",
        "return 0",
        (
            "return 1",
            "return (-1)",
        ),
    ),
    (
        "extend",
        "The pause has this end already.",
        "if found < now + duration then",
        ("if found <= now + duration then",),
    ),
    (
        "release",
        "What comes after the four values is not used.",
        "local strategy, period, instant, sequence = unpack(plan, 4 * n - 2, 4 * n + 1)",
        (
            "local strategy, period, instant, sequence = unpack(plan, 4 * n - 2, 4 * n + 2)",
            "local strategy, period, instant, sequence = unpack(plan, 4 * n - 2, 5 * n + 1)",
        ),
    ),
    (
        "forget",
        "It is not asked how much fits.",
        "local done, problem, _, reset_at = pcall(read, key, period, 0, 0)",
        (
            "local done, problem, _, reset_at = pcall(read, key, period, 1, 0)",
            "local done, problem, _, reset_at = pcall(read, key, period, (-1), 0)",
            "local done, problem, _, reset_at = pcall(read, key, period, 0, 1)",
            "local done, problem, _, reset_at = pcall(read, key, period, 0, (-1))",
        ),
    ),
    (
        "fixed",
        "An empty window has no end, and the last two values are for other strategies.",
        "return 0, cost > amount and -1 or 0, now, 0, 0, 0",
        (
            "return 0, cost > amount and -1 or 0, now, 1, 0, 0",
            "return 0, cost > amount and -1 or 0, now, (-1), 0, 0",
            "return 0, cost > amount and -1 or 0, now, 0, 1, 0",
            "return 0, cost > amount and -1 or 0, now, 0, (-1), 0",
            "return 0, cost > amount and -1 or 0, now, 0, 0, 1",
            "return 0, cost > amount and -1 or 0, now, 0, 0, (-1)",
        ),
    ),
    (
        "fixed",
        "The last two values are for other strategies.",
        "return count, retry_at, count > 0 and ends or now, ends, 0, 0",
        (
            "return count, retry_at, count > 0 and ends or now, ends, 1, 0",
            "return count, retry_at, count > 0 and ends or now, ends, (-1), 0",
            "return count, retry_at, count > 0 and ends or now, ends, 0, 1",
            "return count, retry_at, count > 0 and ends or now, ends, 0, (-1)",
        ),
    ),
    (
        "sliding",
        "The long multiplication is exact for small products, too.",
        "if product < 2 ^ 53 then",
        (
            "if product < 2 ^ (52) then",
            "if product < (1) ^ 53 then",
        ),
    ),
    (
        "sliding",
        "A higher digit is 0, and for counts up to 2 ^ 50 this one may be the first.",
        "local quotient, rest, unit, left = 0, 0, 4 ^ 26, a",
        (
            "local quotient, rest, unit, left = 0, 0, 4 ^ 27, a",
            "local quotient, rest, unit, left = 0, 0, 4 ^ (25), a",
        ),
    ),
    ("sliding", "Nothing weighs nothing.", "if previous == 0 then", ("if previous == (-1) then",)),
    (
        "undo",
        "No hit has an instant from -1 to 0.",
        "if instant >= 0 then",
        (
            "if instant > 0 then",
            "if instant >= 1 then",
            "if instant >= (-1) then",
        ),
    ),
    (
        "decide",
        "No hit has the instant 0.",
        "if brief and instant >= 0 then",
        (
            "if brief and instant > 0 then",
            "if brief and instant >= 1 then",
        ),
    ),
    (
        "decide",
        "The size is written over it.",
        "reply[at] = 0",
        (
            "reply[at] = 1",
            "reply[at] = (-1)",
        ),
    ),
    (
        "decide",
        "The part for several windows does the same for one.",
        "if windows == 1 then",
        ("if windows == (0) then",),
    ),
    (
        "decide",
        "A hit that is not counted has no sequence.",
        "local instant, sequence = -1, 0",
        ("local instant, sequence = -1, 1",),
    ),
    (
        "decide",
        "A hit that is not counted has no sequence.",
        "local count, retry_at, reset_at, instant, sequence = found[slot + 1], found[slot + 2], found[slot + 3], -1, 0",
        (
            "local count, retry_at, reset_at, instant, sequence = found[slot + 1], found[slot + 2], found[slot + 3], -1, 1",
        ),
    ),
    ("decide", "Any number below 0 says that it is refused.", "granted = -1", ("granted = -2",)),
    (
        "decide",
        "The server has checked that the user may write to all keys.",
        "local key, may = keys[skipped + 1], redis.acl_check_cmd",
        ("local key, may = keys[skipped + 2], redis.acl_check_cmd",),
    ),
    (
        "decide",
        "The sixth value is not used.",
        "local a, b, c, d, e = unpack(found, slot + 4, slot + 8)",
        ("local a, b, c, d, e = unpack(found, slot + 4, slot + 9)",),
    ),
)
"""The script, the reason, the line without a fault, and the lines with one."""

IN_LUA: dict[tuple[str, str, str], str] = {
    (f"storage/redis/{script}.lua", line, fault): reason
    for script, reason, line, faults in (*_IN_OTHERS, *IN_MOVING_WINDOWS)
    for fault in faults
}
"""The same as entries of `EQUIVALENTS`."""
