"""Faults in the scripts for moving windows on Redis that change nothing, and faults in giving hits back."""

from __future__ import annotations

IN_MOVING_WINDOWS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("moving", "No level below 1 adds a place to the message.", "error('ODD', 0)", ("error('ODD', (-1))",)),
    (
        "give",
        "It is not asked how much fits.",
        "local count, _, _, kept = read_fixed(key, period, 0, 0)",
        (
            "local count, _, _, kept = read_fixed(key, period, 1, 0)",
            "local count, _, _, kept = read_fixed(key, period, (-1), 0)",
            "local count, _, _, kept = read_fixed(key, period, 0, 1)",
            "local count, _, _, kept = read_fixed(key, period, 0, (-1))",
        ),
    ),
    (
        "give",
        "The search finds the same hit with steps of any length, from any start.",
        "newer, older = older, 2 * older + 1",
        (
            "newer, older = older, 2 * older + 2",
            "newer, older = older, (1) * older + 1",
            "newer, older = older, 3 * older + 1",
            "newer, older = older, 2 + older + 1",
        ),
    ),
    (
        "give",
        "The search finds the same hit with steps of any length, from any start.",
        "local newer, older = -1, 0",
        (
            "local newer, older = -1, 1",
            "local newer, older = -(0), 0",
        ),
    ),
    (
        "give",
        "At the last element there is nothing to read.",
        "for from = 0, index - 1, SLICE do",
        (
            "for from = 0, index - (0), SLICE do",
            "for from = 0, index + 1, SLICE do",
        ),
    ),
    (
        "give",
        "What is read behind the element is not written.",
        "local last = math.min(from + SLICE, index) - 1",
        ("local last = math.max(from + SLICE, index) - 1",),
    ),
    (
        "give",
        "There is no element 0 to be written.",
        "for newer = n, math.max(n - SLICE, 0) + 1, -1 do",
        ("for newer = n, math.max(n - SLICE, (-1)) + 1, -1 do",),
    ),
    (
        "give",
        "The search finds the hit, too; and the second element has no sum if no hit of cost 1 has one.",
        "local newest = cost == 1 and element_at(key, 0)",
        (
            "local newest = cost == (0) and element_at(key, 0)",
            "local newest = cost == 1 and element_at(key, 1)",
        ),
    ),
    ("give", "The search finds the hit, too.", "if extra == 0 then", ("if extra == (-1) then",)),
    (
        "give",
        "No two elements are equal, and no sum and no cost below 2 is written.",
        "return call('LREM', key, 1, written(stamp, sequence, 0, 1)) > 0",
        (
            "return call('LREM', key, 2, written(stamp, sequence, 0, 1)) > 0",
            "return call('LREM', key, (0), written(stamp, sequence, 0, 1)) > 0",
            "return call('LREM', key, 1, written(stamp, sequence, (-1), 1)) > 0",
            "return call('LREM', key, 1, written(stamp, sequence, 0, (0))) > 0",
        ),
    ),
    (
        "give",
        "Taking out the newest element, or one of cost 1, in the long way leaves the same.",
        "if cost > 1 and 0 < index and index < size - 1 then",
        (
            "if cost >= 1 and 0 < index and index < size - 1 then",
            "if cost > (0) and 0 < index and index < size - 1 then",
            "if cost > 1 and 0 <= index and index < size - 1 then",
            "if cost > 1 and (-1) < index and index < size - 1 then",
        ),
    ),
    (
        "give",
        "The element is there once, so it is found from either end.",
        "return call('LREM', key, index < size / 2 and 1 or -1, text) > 0",
        (
            "return call('LREM', key, index <= size / 2 and 1 or -1, text) > 0",
            "return call('LREM', key, index >= size / 2 and 1 or -1, text) > 0",
            "return call('LREM', key, index < size * 2 and 1 or -1, text) > 0",
            "return call('LREM', key, index < size / 3 and 1 or -1, text) > 0",
            "return call('LREM', key, index < size / (1) and 1 or -1, text) > 0",
            "return call('LREM', key, index < size / 2 and 2 or -1, text) > 0",
            "return call('LREM', key, index < size / 2 and (0) or -1, text) > 0",
            "return call('LREM', key, index < size / 2 and 1 or -2, text) > 0",
            "return call('LREM', key, index < size / 2 and 1 or -(0), text) > 0",
            "return call('LREM', key, index < size / 2 and 1 or -1, text) >= 0",
            "return call('LREM', key, index < size / 2 and 1 or -1, text) > (-1)",
        ),
    ),
    (
        "moving",
        "The same is read by other commands.",
        "local SHORT, FEW = 10, 64",
        (
            "local SHORT, FEW = 11, 64",
            "local SHORT, FEW = (9), 64",
            "local SHORT, FEW = 10, 65",
            "local SHORT, FEW = 10, (63)",
        ),
    ),
    (
        "moving",
        "Any number of elements may be read and written at a time.",
        "local SLICE = 1000",
        (
            "local SLICE = 1001",
            "local SLICE = (999)",
        ),
    ),
    (
        "moving",
        "Here the cost is 1.",
        "local extra, cost, least = string.match(rest, '^:(%d+)$'), 1, 1",
        ("local extra, cost, least = string.match(rest, '^:(%d+)$'), 1, (0)",),
    ),
    (
        "moving",
        "The same is read by other commands.",
        "if amount <= FEW then",
        (
            "if amount < FEW then",
            "if amount > FEW then",
        ),
    ),
    (
        "moving",
        "The same is read by other commands.",
        "list = call('LRANGE', key, 0, 1)",
        ("list = call('LRANGE', key, 0, 2)",),
    ),
    (
        "moving",
        "Any number above SHORT says that the list is longer than what was read.",
        "size = #list < 2 and #list or SHORT + 1",
        ("size = #list < 2 and #list or SHORT + 2",),
    ),
    (
        "moving",
        "What an empty window ends with is not used: its newest stamp is before every time of a server.",
        "return 0, cost > amount and -1 or 0, now, -1, 0, 0, 0, 0",
        (
            "return 0, cost > amount and -1 or 0, now, -1, 1, 0, 0, 0",
            "return 0, cost > amount and -1 or 0, now, -1, (-1), 0, 0, 0",
            "return 0, cost > amount and -1 or 0, now, -1, 0, 1, 0, 0",
            "return 0, cost > amount and -1 or 0, now, -1, 0, (-1), 0, 0",
            "return 0, cost > amount and -1 or 0, now, -1, 0, 0, 1, 0",
            "return 0, cost > amount and -1 or 0, now, -1, 0, 0, (-1), 0",
            "return 0, cost > amount and -1 or 0, now, -1, 0, 0, 0, 1",
            "return 0, cost > amount and -1 or 0, now, -1, 0, 0, 0, (-1)",
            "return 0, cost > amount and -1 or 0, now, -2, 0, 0, 0, 0",
            "return 0, cost > amount and -1 or 0, now, -(0), 0, 0, 0, 0",
        ),
    ),
    ("moving", "The same is read by other commands.", "if size > SHORT then", ("if size >= SHORT then",)),
    (
        "moving",
        "No time of a server is 0.",
        "not (0 <= oldest and oldest <= newest and newest <= 2 ^ 53 - 2 ^ 51 and newest % 1 + oldest % 1 == 0)",
        (
            "not (0 < oldest and oldest <= newest and newest <= 2 ^ 53 - 2 ^ 51 and newest % 1 + oldest % 1 == 0)",
            "not (1 <= oldest and oldest <= newest and newest <= 2 ^ 53 - 2 ^ 51 and newest % 1 + oldest % 1 == 0)",
        ),
    ),
    (
        "moving",
        "The search finds the same element with steps of any length, from any start.",
        "local over, step = size - 1, 1",
        (
            "local over, step = size - 1, 2",
            "local over, step = size - (0), 1",
        ),
    ),
    (
        "moving",
        "The newest element, at 0, is not over here.",
        "while over - step > 0 and parse(element_at(key, over - step)) <= edge do",
        (
            "while over - step >= 0 and parse(element_at(key, over - step)) <= edge do",
            "while over - step > (-1) and parse(element_at(key, over - step)) <= edge do",
        ),
    ),
    (
        "moving",
        "The search finds the same element with steps of any length, from any start.",
        "over, step = over - step, step * 2",
        ("over, step = over - step, step * 3",),
    ),
    (
        "moving",
        "The newest element, at 0, is not over here.",
        "local low = math.max(over - step, 0)",
        ("local low = math.max(over - step, (-1))",),
    ),
    (
        "moving",
        "Without costs above 1 all sums are 0.",
        "if extra > 0 then",
        (
            "if extra >= 0 then",
            "if extra > (-1) then",
        ),
    ),
    ("moving", "The search finds the same element.", "if count > live then", ("if count >= live then",)),
    (
        "moving",
        "The search never ends behind the oldest element that counts.",
        "first = live - 1",
        ("first = live - (0)",),
    ),
    (
        "moving",
        "The last element is the oldest.",
        "if first < size - 1 then",
        (
            "if first <= size - 1 then",
            "if first < size - (0) then",
            "if first < size + 1 then",
        ),
    ),
    ("moving", "There is nothing to trim.", "if live < size then", ("if live <= size then",)),
    (
        "moving",
        "An end before the beginning trims everything, and the first element is at 0.",
        "call('LTRIM', key, live > 0 and 0 or 1, live > 0 and format(whole, live - 1) or 0)",
        (
            "call('LTRIM', key, live > 0 and 0 or 2, live > 0 and format(whole, live - 1) or 0)",
            "call('LTRIM', key, live > 0 and 0 or 1, live > 1 and format(whole, live - 1) or 0)",
        ),
    ),
    (
        "moving",
        "The sum may start anew somewhat earlier.",
        "elseif extra + cost > HIGHEST then",
        ("elseif extra + cost >= HIGHEST then",),
    ),
    (
        "moving",
        "The text of an instant is made only once to save time.",
        "if extra == 0 then",
        ("if extra == (-1) then",),
    ),
    (
        "moving",
        "The text of an instant is made only once to save time.",
        "instant = instant or format(whole, now)",
        (
            "instant = instant and format(whole, now)",
            "",
        ),
    ),
    ("moving", "The text of an instant is made only once to save time.", "element = instant", ("",)),
    (
        "moving",
        "Sequences only have to grow.",
        "sequence = math.max(sequence + 1, now < newest and now or 0)",
        (
            "sequence = math.max(sequence + 1, now < newest and now or 1)",
            "sequence = math.max(sequence + 1, now < newest and now or (-1))",
            "sequence = math.max(sequence + 2, now < newest and now or 0)",
            "sequence = math.max(sequence + 1, now <= newest and now or 0)",
        ),
    ),
    (
        "moving",
        "No two elements are equal.",
        "call('LREM', key, 1, element)",
        (
            "call('LREM', key, 2, element)",
            "call('LREM', key, (0), element)",
        ),
    ),
)
"""The script, the reason, the line without a fault, and the lines with one."""
