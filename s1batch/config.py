"""The base of all models of the job file, and the tag that tells what may change between runs.

Every field of a job is an *answer* field (it can change a row, so results made with another value are refused) or a
*placement* field (it only says where and how fast the work is done).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _alone_is_a_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


OneOrSeveral = BeforeValidator(_alone_is_a_list)
"""Goes into the annotation of a tuple, so that a text may stand alone for a list of one."""

Texts = Annotated[tuple[str, ...], OneOrSeveral]
"""Texts of a job file: one, or a list."""


class Config(BaseModel):
    """A frozen model that refuses unknown fields; its validator is made when it is first wanted, as few ever are."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, str_strip_whitespace=True)


def placement(default: Any = ..., **kwargs: Any) -> Any:
    """Declare a field that cannot change an answer: workers, limits, URLs, output paths."""
    return Field(default, json_schema_extra={"s1batch": "placement"}, **kwargs)


def answer_fields(model: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Return the fields that can change a row, as {dotted name: plain value}, nested models unfolded."""
    found: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("s1batch") == "placement":
            continue
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found.update(answer_fields(value, f"{prefix}{name}."))
        elif isinstance(value, dict) and value and all(isinstance(each, BaseModel) for each in value.values()):
            for key, each in value.items():
                found.update(answer_fields(each, f"{prefix}{name}.{key}."))
        else:
            found[f"{prefix}{name}"] = model.model_dump(mode="json", include={name})[name]
    return found
