"""Those who need something of the rules: each is asked about a new rule set before it comes into force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias
from weakref import ref

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimited_notify.rules.plans import Plans
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet

    Check: TypeAlias = Callable[[RuleSet], object]
    _Declared: TypeAlias = Mapping[str, Rule]


class HasRules(Protocol):
    """What goes by rules."""

    @property
    def rules(self) -> RuleSet: ...


class Coming:
    """Rules that are about to come into force, as long as somebody is about to put them there."""

    __slots__ = ("__weakref__", "rules")

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules


class Checks:
    """The checks of those who need something of the rules of a limiter. A check is forgotten when nobody else has it."""

    def __init__(self) -> None:
        self._checks: dict[int, ref[Check]] = {}
        # Changed only by a thread that may change the rules.
        self._coming: tuple[ref[Coming], ...] = ()
        # The check that refused rules, if it was one of these, and the limits of decorators at that time.
        self._refusal: tuple[ref[Check] | None, _Declared] | None = None

    def coming(self, rules: RuleSet) -> Coming:
        """Note that these rules are about to come into force, as long as somebody keeps what this returns."""
        coming = Coming(rules)
        self._coming = *(each for each in self._coming if each() is not None), ref(coming)
        return coming

    def accepted(self, rules: RuleSet, declared: _Declared, plan: Callable[[], Plans]) -> Plans:
        """The plans for rules that nobody refuses.

        Arguments:
            rules: the rules.
            declared: the limits of decorators.
            plan: makes the plans.

        Raises:
            NotifyError: one of the checks refuses the rules, or no plans can be made.
        """
        asked: ref[Check] | None = None
        try:
            for number, asked in list(self._checks.items()):
                check = asked()
                if check is None:
                    self._checks.pop(number, None)
                else:
                    check(rules)
            asked = None
            return plan()
        except NotifyError:
            self._refusal = asked, declared
            raise

    def reconsiders(self, declared: _Declared) -> bool:
        """Whether the rules that were refused last may be usable by now: who refused them is gone, or other limits are declared."""
        if self._refusal is None:
            return False
        check, before = self._refusal
        return declared is not before or (check is not None and check() is None)

    def register(self, check: Check, limiter: HasRules) -> None:
        """Ask this function about each new rule set.

        Raises:
            NotifyError: it refuses the rules in force, or those that are just about to come into force.
        """
        self._checks[id(check)] = ref(check)
        try:
            # Another thread may have asked all others already. First what is coming, since it may be in force a moment later.
            for reference in self._coming:
                coming = reference()
                if coming is not None:
                    check(coming.rules)
            check(limiter.rules)
        except BaseException:
            self._checks.pop(id(check), None)
            raise
