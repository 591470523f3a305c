"""Options of sbatch, as a person writes them: any of them may be set, apart from those that a submission needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from s1batch.errors import UsageError

Flags = Mapping[str, str | None]
"""Long names of sbatch options without dashes, and their values; None: an option without a value."""

_LONG = {
    "A": "account",
    "a": "array",
    "b": "begin",
    "C": "constraint",
    "c": "cpus-per-task",
    "D": "chdir",
    "d": "dependency",
    "e": "error",
    "G": "gpus",
    "J": "job-name",
    "L": "licenses",
    "N": "nodes",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "w": "nodelist",
    "x": "exclude",
}

OWN = {
    "array": "use --array N and --parallel",
    "signal": "use --signal-before",
    "open-mode": "logs are appended to, so that a requeue keeps them",
    "output": "logs lie in the submission's folder",
    "error": "logs lie in the submission's folder",
    "requeue": "use --requeue K",
    "no-requeue": "use --requeue 0",
    "dependency": "submit when what the job waits for has ended",
    "parsable": "s1batch reads sbatch's answer itself",
    "test-only": "use --dry-run",
    "wait": "use `s1batch status`",
    "wrap": "the script is made by s1batch; use --setup for lines of your own",
    "clusters": "run `s1batch submit` where the cluster is",
}
"""Options that belong to the submission, and what to do instead."""

_CLOSING_TAKES = ("account", "partition", "qos", "reservation", "time")


def parse_flags(texts: Iterable[str], where: str = "--sbatch") -> dict[str, str | None]:
    """Parse `key=value`, `key`, and `key=`, which takes away what the site's configuration sets.

    Raises:
        UsageError: An option is malformed, or belongs to the submission.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        found[flag_name(key, where)] = _plain(value, f"{where} {text}") if equals else None
    return found


def flag_name(key: str, where: str) -> str:
    """Return the long name of an option.

    Raises:
        UsageError: There is none, or it belongs to the submission.
    """
    name = key.strip().lstrip("-")
    name = _LONG.get(name, name).replace("_", "-")
    if len(name) < 2 or not name.replace("-", "").isalnum():
        raise UsageError(f"{where} {key}: write the long name of an sbatch option, for example mem=8G")
    if name in OWN:
        raise UsageError(f"{where} {key}: s1batch sets this itself: {OWN[name]}")
    return name


def flag_value(value: object, where: str) -> str | None:
    """Return a value of a configuration file as sbatch reads it; None for `true`.

    Raises:
        UsageError: It is no text, number or truth value.
    """
    if value is True:
        return None
    if value is False:
        return ""
    if isinstance(value, int | float | str):
        return _plain(str(value), where)
    raise UsageError(f"{where}: {value!r}: give a text, a number, true or false")


def joined(*layers: Flags) -> dict[str, str | None]:
    """Join options, later ones over earlier ones; those whose value is empty are left out."""
    together: dict[str, str | None] = {}
    for layer in layers:
        together.update(layer)
    return {name: value for name, value in together.items() if value != ""}


def closing_flags(array: Flags, closing: Flags) -> dict[str, str | None]:
    """Return the options of the closing job: who pays and where as the array, the rest as configured."""
    return joined({name: array[name] for name in _CLOSING_TAKES if name in array}, closing)


def seconds_of(time: str) -> float | None:
    """Return a time limit in seconds (m, m:s, h:m:s, d-h, d-h:m, d-h:m:s); None when it is no limit, or not known."""
    days, dash, rest = time.rpartition("-")
    try:
        fields = [int(each) for each in rest.split(":")]
        whole_days = int(days) if dash else 0
    except ValueError:
        return None
    if len(fields) > 3:
        return None
    if dash or len(fields) == 3:
        hours, minutes, seconds = [*fields, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*fields, 0][:2]
    return float(((whole_days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _plain(value: str, where: str) -> str:
    if any(character in value for character in "\n\r\0"):
        raise UsageError(f"{where}: a value must not hold line breaks")
    return value.strip()
