"""Arithmetic and units, exactly as they are asked for."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

LARGEST_EXPONENT = 1000
MOST_DIGITS = 1000

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    name: getattr(math, name)
    for name in (
        *("sqrt", "exp", "log", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "atan2"),
        *("sinh", "cosh", "tanh", "radians", "degrees", "hypot", "floor", "ceil"),
    )
} | {"abs": abs, "round": round, "min": min, "max": max}
_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}

# Factors to the SI unit of each quantity; exact by definition where no source is named.
_UNITS: Mapping[str, Mapping[str, float]] = {
    "length": {"m": 1, "km": 1e3, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "ft": 0.3048, "mi": 1609.344},
    "time": {"s": 1, "ms": 1e-3, "us": 1e-6, "min": 60, "h": 3600, "d": 86400},
    "speed": {"m/s": 1, "km/s": 1e3, "km/h": 1 / 3.6, "cm/s": 1e-2, "mm/s": 1e-3, "um/s": 1e-6, "nm/s": 1e-9},
    "acceleration": {"m/s^2": 1, "cm/s^2": 1e-2, "gal": 1e-2, "g": 9.80665},
    "angle": {"rad": 1, "deg": math.pi / 180, "arcmin": math.pi / 10800, "arcsec": math.pi / 648000},
    "mass": {"kg": 1, "g_mass": 1e-3, "mg": 1e-6, "t": 1e3},
    "pressure": {"Pa": 1, "hPa": 100, "kPa": 1e3, "MPa": 1e6, "GPa": 1e9, "bar": 1e5, "atm": 101325},
    "energy": {"J": 1, "kJ": 1e3, "MJ": 1e6, "erg": 1e-7, "eV": 1.602176634e-19, "kWh": 3.6e6},
    "moment": {"N*m": 1, "dyn*cm": 1e-7},
    "frequency": {"Hz": 1, "mHz": 1e-3, "kHz": 1e3, "MHz": 1e6},
}
_ZERO_IN_KELVIN = {"K": (1.0, 0.0), "degC": (1.0, 273.15), "degF": (5 / 9, 459.67 * 5 / 9)}


def calculate(expression: Annotated[str, Field(max_length=500)]) -> float | int:
    """Work out an arithmetic expression, such as "6371 * radians(30)" or "log10(3.2e18) / 1.5 - 6.07".

    Knows + - * / // % **, parentheses, pi, e, sqrt, exp, log (natural), log2, log10, sin, cos, tan, asin, acos, atan,
    atan2, sinh, cosh, tanh, radians, degrees, hypot, floor, ceil, abs, round, min, max. Angles are in radians.

    Args:
        expression: The expression; no names of your own.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{expression!r} is no arithmetic expression") from error
    value: float | int = _value(tree.body)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"the result is {value}")
    return value


def convert_units(value: float, from_unit: str, to_unit: str) -> float:
    """Convert a value between units of one quantity, such as 3.2 km/s to m/s, or 20 degC to K.

    Lengths m, km, cm, mm, um, nm, ft, mi; times s, ms, us, min, h, d; speeds m/s, km/s, km/h, cm/s, mm/s, um/s, nm/s;
    accelerations m/s^2, cm/s^2, gal, g; angles rad, deg, arcmin, arcsec; masses kg, g_mass, mg, t; pressures Pa, hPa,
    kPa, MPa, GPa, bar, atm; energies J, kJ, MJ, erg, eV, kWh; moments N*m, dyn*cm; frequencies Hz, mHz, kHz, MHz;
    temperatures K, degC, degF.
    """
    if from_unit in _ZERO_IN_KELVIN and to_unit in _ZERO_IN_KELVIN:
        scale, zero = _ZERO_IN_KELVIN[from_unit]
        other_scale, other_zero = _ZERO_IN_KELVIN[to_unit]
        return (value * scale + zero - other_zero) / other_scale
    for units in _UNITS.values():
        if from_unit in units and to_unit in units:
            return value * units[from_unit] / units[to_unit]
    raise ValueError(f"no conversion from {from_unit!r} to {to_unit!r}")


def _value(node: ast.expr) -> Any:
    """Evaluate a tree of numbers, operators and the functions above; nothing else is in the language."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(op, _value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(_value, arguments))
    raise ValueError(f"{ast.unparse(node)[:80]!r} is no arithmetic")


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Pow) and abs(right) > LARGEST_EXPONENT:
        raise ValueError(f"an exponent beyond {LARGEST_EXPONENT}")
    value = _BINARY[type(op)](left, right)
    if isinstance(value, complex):
        raise ValueError("the result is no real number")
    if isinstance(value, int) and value.bit_length() > 4 * MOST_DIGITS:
        raise ValueError(f"an integer of more than {MOST_DIGITS} digits")
    return value
