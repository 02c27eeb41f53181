"""From pydantic's errors to JSON pointers, each with a sentence that says what to do."""

import difflib
from collections.abc import Sequence
from typing import Any

from service.errors import Pointer

Schema = dict[str, Any]


def pointers(errors: Sequence[Any], body: Any, schema: Schema, document: Schema) -> list[Pointer]:
    """One `Pointer` for each wrong place. `schema` is the body's, inside the OpenAPI `document`."""
    return [_pointer(error, body, schema, document) for error in errors]


def _pointer(error: Any, body: Any, schema: Schema, document: Schema) -> Pointer:
    source, *parts = error["loc"]
    if source != "body":
        return Pointer(_join([source, *parts]), _sentence(error))
    if error["type"] == "json_invalid":
        return Pointer("", f"This is not JSON ({error['ctx']['error']} at character {parts[0]}).")
    path: list[Any] = []
    value, here = body, _resolve(schema, body, document)
    for part in parts:
        if isinstance(value, dict) and part not in value and part == value.get("kind", value.get("type")):
            continue  # pydantic names the chosen variant, the request does not
        path.append(part)
        value = _child(value, part)
        outer, here = here, _resolve(_property(here, part), value, document)
        if error["type"] == "extra_forbidden" and part is parts[-1]:
            return Pointer(_join(path), _unknown(part, outer))
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append(error["ctx"]["discriminator"].strip("'"))
        return Pointer(_join(path), _unknown_tag(error))
    sentence = _sentence(error)
    if (named := sentence.split()[0]) in here.get("properties", {}):  # a check over several fields names the first
        path.append(named)
    return Pointer(_join(path), sentence)


def _join(parts: Sequence[Any]) -> str:
    escaped = (str(part).replace("~", "~0").replace("/", "~1")[:200] for part in parts)
    return "".join(f"/{part}" for part in escaped)


def _sentence(error: Any) -> str:
    match error["type"]:
        case "missing":
            return "This is needed; add it."
        case "extra_forbidden":
            return "This is not known here; remove it."
        case "model_attributes_type" | "model_type":
            return "This must be a JSON object; send it with Content-Type: application/json."
        case _:
            text = str(error["msg"]).removeprefix("Value error, ")
            text = text.replace("Input should be ", "This must be ", 1)
            return text if text.endswith(".") else f"{text}."


def _unknown(name: Any, schema: Schema) -> str:
    known = list(schema.get("properties", {}))
    if (near := _near(name, known)) is not None:
        return f"This is not known here; did you mean '{near}'?"
    return f"This is not known here; remove it. Known are: {', '.join(known)}." if known else "Remove this."


def _unknown_tag(error: Any) -> str:
    known = [tag.strip(" '") for tag in str(error["ctx"].get("expected_tags", "")).split(",") if tag]
    if error["type"] == "union_tag_not_found":
        return "This is needed to choose the form of the rest; add it."
    near = _near(error["ctx"]["tag"], known)
    hint = f"did you mean '{near}'? " if near is not None else ""
    return f"This is not known; {hint}Known are: {', '.join(known)}."


def _near(name: Any, known: Sequence[str]) -> str | None:
    found = difflib.get_close_matches(str(name)[:100], known, n=1)
    return found[0] if found else None


def _child(value: Any, part: Any) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _property(schema: Schema, part: Any) -> Schema:
    found: Schema = schema.get("items", {}) if isinstance(part, int) else schema.get("properties", {}).get(part, {})
    return found


def _resolve(schema: Schema, value: Any, document: Schema) -> Schema:
    """The object or array schema that applies to `value`: references followed, variants chosen."""
    while True:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        elif "discriminator" in schema:
            tag = value.get(schema["discriminator"]["propertyName"]) if isinstance(value, dict) else None
            reference = schema["discriminator"]["mapping"].get(tag) if isinstance(tag, str) else None
            if reference is None:
                return {}
            schema = {"$ref": reference}
        elif "anyOf" in schema:
            some = [variant for variant in schema["anyOf"] if variant.get("type") != "null"]
            schema = some[0] if len(some) == 1 else {}
        else:
            return schema
