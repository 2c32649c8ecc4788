"""Arithmetic and nothing else: `2 * (3 + 4)` is 14, for jobs of type `calculate`.

    numbers     12   0.5   1.5e3           constants   pi   e
    operators   + - * / // % **            functions   min max abs round sqrt floor ceil

All that Python means by these, with one kind of number: a fraction, so nothing is rounded
on the way and `0.1 + 0.2` is 0.3. Only roots, `**` with an exponent that is not whole, pi
and e are rounded, to 40 digits. Other names, attributes, calls and texts do not exist.

A text is read once into steps for a stack, and the steps are carried out one after the
other. So it can be checked without being worked out, and neither takes long: the limits
below bound the text, how deep it nests, and every number on the way.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation, Overflow
from fractions import Fraction

from attrs import define, field, frozen

from ..base.errors import Refusal
from ..base.text import escape

MAX_TEXT = 1000  # characters
MAX_DEPTH = 40  # brackets, signs and powers within one another
MAX_BITS = 4096  # of any number on the way: some 1,200 digits before the point, or behind it
MAX_PLACES = 100  # that round() can be asked for
DIGITS = 40  # of what cannot be exact
SHOWN_DIGITS = 15  # behind the point, of a result that is not whole

Number = Fraction
ROUGH = Context(prec=DIGITS, Emin=-MAX_BITS, Emax=MAX_BITS, traps=[InvalidOperation, Overflow])


@frozen
class Step:
    """One step of a calculation: a number to push, or what to do with those on top of the stack."""

    column: int  # where it stands in the text, from 1; what is wrong with it is told there
    takes: int
    do: Callable[..., Number]


def calculate(text: str) -> str:
    """The result as text. Raises Refusal: `syntax`, or `limit` for what has no result within the limits."""
    return format_number(evaluate(parse(text)))


# --- reading ----------------------------------------------------------------------------

_TOKEN = re.compile(
    r"[ \t]*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>\*\*|//|[-+*/%(),])|(?P<end>\Z)|(?P<strange>.))",
    re.DOTALL,
)


@frozen
class Token:
    """A word of the text."""

    kind: str  # a group of _TOKEN
    text: str
    column: int


def parse(text: str) -> list[Step]:
    """The steps to take. Raises Refusal (`syntax`) naming the column."""
    if len(text) > MAX_TEXT:
        raise Refusal("syntax", f"a calculation has {MAX_TEXT} characters at most")
    parser = _Parser(text)
    parser.read(0)
    if parser.token.kind != "end":
        raise parser.unexpected("an operator")
    return parser.steps


@define
class _Parser:
    """Reads by precedence: `read(n)` takes all that binds more tightly than n."""

    text: str
    at: int = 0
    depth: int = 0
    steps: list[Step] = field(factory=list)
    token: Token = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.advance()

    def advance(self) -> Token:
        """The token that was next; the one after it is next now."""
        before = getattr(self, "token", Token("", "", 0))
        match = _TOKEN.match(self.text, self.at)
        assert match
        kind = str(match.lastgroup)
        self.token = Token(kind, match[kind], match.start(kind) + 1)
        self.at = match.end()
        return before

    def unexpected(self, wanted: str) -> Refusal:
        found = f'"{escape(self.token.text)}"' if self.token.text else "the end"
        return Refusal("syntax", f"column {self.token.column}: {wanted} was expected, not {found}")

    def expect(self, sign: str) -> None:
        if self.token.text != sign:
            raise self.unexpected(f'"{sign}"')
        self.advance()

    def read(self, above: int) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refusal("syntax", f"column {self.token.column}: more than {MAX_DEPTH} levels deep")
        self.read_operand()
        while (found := _OPERATORS.get(self.token.text)) and found[0] > above:
            token = self.advance()
            binding, do = found
            # A power takes the powers to its right first, and a sign there: 2 ** -1.
            self.read(binding - 1 if token.text == "**" else binding)
            self.steps.append(Step(token.column, 2, do))
        self.depth -= 1

    def read_operand(self) -> None:
        token = self.token
        if token.kind == "number":
            self.steps.append(_number(self.advance()))
        elif token.kind == "name":
            self.read_name(self.advance())
        elif token.text == "(":
            self.advance()
            self.read(0)
            self.expect(")")
        elif token.text in ("+", "-"):
            self.advance()
            self.read(_SIGN_BINDS)
            self.steps.append(Step(token.column, 1, operator.neg if token.text == "-" else operator.pos))
        else:
            raise self.unexpected("a number")

    def read_name(self, token: Token) -> None:
        if (value := _CONSTANTS.get(token.text)) is not None:
            self.steps.append(Step(token.column, 0, lambda: value))
            return
        if token.text not in _FUNCTIONS:
            known = ", ".join([*_CONSTANTS, *_FUNCTIONS])
            raise Refusal(
                "syntax", f'column {token.column}: there is no "{escape(token.text)}"; there are {known}'
            )
        least, most, do = _FUNCTIONS[token.text]
        self.expect("(")
        self.read(0)
        count = 1
        while self.token.text == ",":
            self.advance()
            self.read(0)
            count += 1
        self.expect(")")
        if not least <= count <= most:
            raise Refusal("syntax", f"column {token.column}: {token.text}() does not take {count} values")
        self.steps.append(Step(token.column, count, do))


def _number(token: Token) -> Step:
    digits, _, exponent = token.text.lower().partition("e")
    if len(exponent) > 5 or abs(int(exponent or 0)) > MAX_BITS // 4:
        raise Refusal("syntax", f"column {token.column}: the number is too large or too small")
    value = Fraction(Decimal(digits)) * Fraction(10) ** int(exponent or 0)
    return Step(token.column, 0, lambda: value)


# --- working out ------------------------------------------------------------------------


def evaluate(steps: list[Step]) -> Number:
    """What comes out. Raises Refusal (`limit`) for what has no result, or none within the limits."""
    stack: list[Number] = []
    for step in steps:
        values = stack[len(stack) - step.takes :]
        del stack[len(stack) - step.takes :]
        stack.append(_do(step, values))
    return stack[0]


def _do(step: Step, values: list[Number]) -> Number:
    try:
        result = step.do(*values)
    except ZeroDivisionError:
        raise Refusal("limit", f"column {step.column}: division by zero") from None
    except _Hopeless as reason:
        raise Refusal("limit", f"column {step.column}: {reason}") from None
    if _bits(result) > MAX_BITS:
        raise Refusal("limit", f"column {step.column}: {_TOO_LARGE}")
    return result


class _Hopeless(Exception):
    """There is no such number, or none that may be tried."""


_TOO_LARGE = f"the number would have more than {MAX_BITS} bits"


def _bits(value: Number) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _power(base: Number, exponent: Number) -> Number:
    if exponent.denominator != 1:
        return _rough_power(base, exponent)
    # Looked at before it is tried: 9 ** 9 ** 9 would not end.
    if (_bits(base) - 1) * abs(exponent.numerator) > MAX_BITS:
        raise _Hopeless(_TOO_LARGE)
    if abs(base) == 1:
        return base if exponent.numerator % 2 else Fraction(1)
    return Fraction(base**exponent.numerator)


def _rough_power(base: Number, exponent: Number) -> Number:
    if base < 0:
        raise _Hopeless("a negative number to a power that is not whole is no real number")
    if not base:
        return Fraction(0) if exponent > 0 else 1 / base  # a division by zero
    try:
        value = ROUGH.power(_decimal(base), _decimal(exponent))
    except Overflow:
        raise _Hopeless(_TOO_LARGE) from None
    # Far below what any number here may be the fraction would have to be built to be seen.
    return Fraction(value) if value.adjusted() > -MAX_BITS // 3 else Fraction(0)


def _decimal(value: Number) -> Decimal:
    return ROUGH.divide(Decimal(value.numerator), Decimal(value.denominator))


def _root(value: Number) -> Number:
    if value < 0:
        raise _Hopeless("a negative number has no real root")
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if Fraction(top**2, bottom**2) == value:
        return Fraction(top, bottom)
    return Fraction(ROUGH.sqrt(_decimal(value)))


def _round(value: Number, places: Number = Fraction(0)) -> Number:
    if places.denominator != 1 or abs(places) > MAX_PLACES:
        raise _Hopeless(f"round() takes a whole number of places up to {MAX_PLACES}")
    return Fraction(round(value, places.numerator))


_SIGN_BINDS = 3  # less than **, so that -2 ** 2 is -4
_OPERATORS: dict[str, tuple[int, Callable[..., Number]]] = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.truediv),
    "//": (2, lambda left, right: Fraction(left // right)),
    "%": (2, operator.mod),
    "**": (4, _power),
}
_CONSTANTS = {
    "pi": Fraction("3.1415926535897932384626433832795028841972"),
    "e": Fraction("2.7182818284590452353602874713526624977572"),
}
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Number]]] = {
    "min": (1, MAX_TEXT, lambda *values: min(values)),
    "max": (1, MAX_TEXT, lambda *values: max(values)),
    "abs": (1, 1, abs),
    "round": (1, 2, _round),
    "sqrt": (1, 1, _root),
    "floor": (1, 1, lambda value: Fraction(math.floor(value))),
    "ceil": (1, 1, lambda value: Fraction(math.ceil(value))),
}


# --- telling ----------------------------------------------------------------------------


def format_number(value: Number) -> str:
    """A whole number in full; any other rounded to 15 digits behind the point, or in all if below 1."""
    if value.denominator == 1:
        return str(value.numerator)
    whole_digits = len(str(abs(int(value)))) if abs(value) >= 1 else 0
    # The narrow context would not hold a number of a thousand digits.
    shown = Context(prec=whole_digits + SHOWN_DIGITS, Emin=-MAX_BITS, Emax=MAX_BITS)
    rounded = shown.divide(Decimal(value.numerator), Decimal(value.denominator)).normalize(shown)
    return format(rounded, "f") if rounded.adjusted() > -SHOWN_DIGITS else str(rounded)
