"""The numbers of a text with their units, compared strictly.

`1,234` is 1234, `5 %` is neither 5 nor 50 %, `3 × 10^4` is 30000. A number of a claim is in its quote when the quote
has the same number with the same unit; where the claim names no unit that is known here, the quote's may be any but a
percentage. Numbers in words ("three") and in names ("CO2", "H1N1") are no numbers; a decimal is always one (M7.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_POWER = re.compile(r"(?<=10)[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_THIN = re.compile(r"(?<=\d)[\u00a0\u202f\u2009](?=\d{3}(?!\d))")
"""No-break and thin spaces between thousands."""

_NUMBER = re.compile(
    r"(?P<before>[^\W\d_])?"
    r"(?P<sign>(?<![\w)\]%.,])[-+])?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![,\d])|\d+[.,]\d+|\d+|(?<![\w.])\.\d+)"
    r"(?P<exponent>[eE][-+]?\d+\b|\s*[×x·*]\s*10\s*\^?\s*\{?(?P<power>[-+]?\d+)\}?"
    r"|\^\{?(?P<of_ten>[-+]?\d{1,3})\}?)?"
)
_RANGE = re.compile(r"\s*(?:-|to|±|\+/-)\s*")
_LIST = re.compile(r"\s*(?:,|and|or|, and|, or)\s*")
_WORDS = {
    "percent": "%",
    "per cent": "%",
    "percentage points": "pp",
    "percentage point": "pp",
    **dict.fromkeys(("second", "seconds", "sec"), "s"),
    **dict.fromkeys(("minute", "minutes"), "min"),
    **dict.fromkeys(("hour", "hours", "hr", "hrs"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("year", "years", "yr", "yrs"), "a"),
    **dict.fromkeys(("metre", "metres", "meter", "meters"), "m"),
    **dict.fromkeys(("kilometre", "kilometres", "kilometer", "kilometers"), "km"),
    **dict.fromkeys(("centimetre", "centimetres", "centimeter", "centimeters"), "cm"),
    **dict.fromkeys(("millimetre", "millimetres", "millimeter", "millimeters"), "mm"),
    **dict.fromkeys(("micrometre", "micrometres", "micrometer", "micrometers", "micron", "microns"), "um"),
    **dict.fromkeys(("nanometre", "nanometres", "nanometer", "nanometers"), "nm"),
    **dict.fromkeys(("gram", "grams"), "g"),
    **dict.fromkeys(("kilogram", "kilograms"), "kg"),
    **dict.fromkeys(("milligram", "milligrams"), "mg"),
    **dict.fromkeys(("kelvin", "kelvins"), "K"),
    **dict.fromkeys(("degree celsius", "degrees celsius", "°c"), "°C"),
    **dict.fromkeys(("degree fahrenheit", "degrees fahrenheit", "°f"), "°F"),
    **dict.fromkeys(("degree", "degrees"), "°"),
    **dict.fromkeys(("hertz",), "Hz"),
    **dict.fromkeys(("litre", "litres", "liter", "liters", "l"), "L"),
}
_SYMBOLS = (
    *("%", "‰", "pp", "ppm", "ppb", "°C", "°F", "°", "K", "mK"),
    *("ns", "us", "ms", "s", "min", "h", "d", "Myr", "Ma", "kyr", "ka", "Ga", "Gyr"),
    *("pm", "nm", "um", "mm", "cm", "m", "km", "Å", "AU", "pc", "kpc", "Mpc"),
    *("ng", "ug", "mg", "g", "kg", "t", "Da", "kDa", "mol", "mmol", "umol", "nmol", "M", "mM", "uM", "nM"),
    *("mL", "ml", "uL", "L", "dB", "Hz", "kHz", "MHz", "GHz", "THz"),
    *("Pa", "hPa", "kPa", "MPa", "GPa", "bar", "mbar", "atm", "N", "kN", "J", "kJ", "MJ", "kcal", "cal"),
    *(
        "W",
        "mW",
        "kW",
        "MW",
        "GW",
        "Wh",
        "kWh",
        "MWh",
        "V",
        "mV",
        "kV",
        "mA",
        "T",
        "mT",
        "eV",
        "meV",
        "keV",
        "MeV",
        "GeV",
    ),
)
_UNIT = re.compile(
    r"\s*(?P<unit>" + "|".join(sorted((re.escape(word) for word in _WORDS), key=len, reverse=True)) + r")(?![\w])",
    re.IGNORECASE,
)
_SYMBOL = re.compile(
    r"\s*(?P<unit>" + "|".join(sorted(map(re.escape, _SYMBOLS), key=len, reverse=True)) + r")(?![^\W\d_])"
    r"(?P<rest>(?:\s?(?:[/·*]\s?[A-Za-zµ°]+(?:\^?-?\d+)?|[A-Za-zµ]+\^?-\d+))*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number in a text.

    Attributes:
        value: The number.
        unit: Its unit in one spelling; empty where no known one follows. The first number of a range has that of the
            second: 5-10 km.
        listed: The unit at the end of the list that it stands in, which may be meant: 3, 5 and 7 km.
        text: As it stands in the text.
    """

    value: Decimal
    unit: str
    text: str
    listed: str = ""


def quantities(text: str) -> list[Quantity]:
    """Return the numbers of a text, in their order."""
    plain = _plain(text)
    found: list[Quantity] = []
    # Where the number before the last one ends tells what stands between the two.
    spans: list[tuple[int, int]] = []
    position = 0
    while match := _NUMBER.search(plain, position):
        position = match.end()
        value = _value(match)
        start = match.start() + (match["before"] is not None)
        in_name = match["before"] is not None and not re.search(r"[.,]", match["digits"])
        if value is None or in_name:
            continue
        unit, position = _unit_behind(plain, match.end())
        found.append(Quantity(value=value, unit=unit, text=plain[start:position].strip()))
        spans.append((start, match.end()))
    for number in range(len(found) - 2, -1, -1):
        between = plain[spans[number][1] : spans[number + 1][0]]
        this, following = found[number], found[number + 1]
        if this.unit:
            continue
        if _RANGE.fullmatch(between):
            found[number] = replace(this, unit=following.unit, listed=following.listed)
        elif _LIST.fullmatch(between):
            found[number] = replace(this, listed=following.unit or following.listed)
    return found


def missing_numbers(claim: str, quote: str) -> list[str]:
    """Return the numbers of a claim, as they stand in it, that its quote does not have."""
    there = quantities(quote)
    return [one.text for one in quantities(claim) if not any(_same(one, other) for other in there)]


def has_number(value: float, unit: str | None, quote: str) -> bool:
    """Return whether a quote has a number, with its unit where that is one that is known here."""
    wanted = Quantity(value=Decimal(repr(value)), unit=known_unit(unit or ""), text="")
    return any(_same(wanted, other) for other in quantities(quote))


def known_unit(text: str) -> str:
    """Return a unit in one spelling; empty where it is none that is known here."""
    plain = _plain(text).strip()
    unit, stop = _unit_behind(plain, 0)
    return unit if stop == len(plain) else ""


def _same(one: Quantity, other: Quantity) -> bool:
    if one.value != other.value:
        return False
    if one.unit in (other.unit, other.listed or other.unit):
        return True
    return not one.unit and (one.listed == other.unit or other.unit not in ("%", "‰", "pp"))


def _plain(text: str) -> str:
    text = _THIN.sub("", text)
    text = _POWER.sub(lambda match: "^" + match.group().translate(_SUPERSCRIPTS), text)
    text = text.translate(_SUPERSCRIPTS)
    for dash in "‐‑‒–—−":
        text = text.replace(dash, "-")
    return text.replace("μ", "u").replace("µ", "u").replace("\u00a0", " ").replace("％", "%").replace("℃", "°C")


def _value(match: re.Match[str]) -> Decimal | None:
    digits = match["digits"]
    grouped = re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits)
    digits = digits.replace(",", "") if grouped else digits.replace(",", ".")
    if match["of_ten"]:
        return Decimal(f"1e{match['of_ten']}") if digits == "10" else Decimal(digits) ** int(match["of_ten"])
    exponent = match["power"] or (match["exponent"] or "").lstrip("eE") or "0"
    sign = "-" if match["sign"] == "-" else ""
    if len(exponent) > 4:
        return None
    try:
        return Decimal(f"{sign}{digits}e{exponent}")
    except InvalidOperation:
        return None


def _unit_behind(text: str, position: int) -> tuple[str, int]:
    """Return the unit that stands at a position, in one spelling, and the position behind it."""
    word = _UNIT.match(text, position)
    if word is not None and word["unit"].lower() in _WORDS:
        # A lone letter is a symbol, whose case counts.
        return _WORDS[word["unit"].lower()], word.end()
    symbol = _SYMBOL.match(text, position)
    if symbol is None:
        return "", position
    return symbol["unit"].replace("ml", "mL") + _rest(symbol["rest"]), symbol.end()


def _rest(text: str) -> str:
    """Return the further factors of a unit in one spelling: /s, s-1, s^-1 and · s-1 are the same."""
    return "".join(sorted(_factors(text)))


def _factors(text: str) -> Iterator[str]:
    for match in re.finditer(r"(?P<over>/)?\s?[·*]?\s?(?P<name>[A-Za-z°]+)\^?(?P<power>-?\d+)?", text):
        power = int(match["power"] or 1) * (-1 if match["over"] else 1)
        yield f"·{match['name']}{power}"
