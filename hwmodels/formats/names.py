"""Names and JSON objects as quantizers: the inverse of `Quantizer.name`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import cast, get_args

from hwmodels.errors import FormatError, UnknownFormatError, nearest
from hwmodels.formats.compose import composed_format
from hwmodels.formats.quantizer import (
    Correction,
    Encoding,
    EncodingKind,
    Format,
    Granularity,
    Overflow,
    Quantizer,
    Rounding,
    Scale,
    ScaleRule,
    Specials,
    Statistic,
    Timing,
)

TRANSFORM = re.compile(
    r"(hadamard|random_hadamard|smooth|equalize|power|expand|outlier_split|low_rank|clamp)"
    r"(\([^()]*\))?"
)
_PERCENTILE = re.compile(r"percentile(\d+(?:\.\d+)?)")
_NUMBERED = {
    re.compile(r"(stochastic)(\d+)"): ("rounding", "random_bits"),
    re.compile(r"(requant|requant_floor)(\d+)"): ("rounding", "high_bits"),
    re.compile(r"(delayed)(\d+)"): ("timing", "history"),
}
"""Words with a number behind them: which fields the word and the number set."""

_CHOICES = {
    "correction": Correction, "granularity": Granularity, "kind": EncodingKind,
    "overflow": Overflow, "rounding": Rounding,
    "rule": ScaleRule, "specials": Specials, "statistic": Statistic, "timing": Timing,
}  # fmt: skip
_WORDS = {
    "statistic": Statistic, "timing": Timing, "rounding": Rounding, "correction": Correction,
}  # fmt: skip
_SPARSE = re.compile(r"(?<![a-z0-9.])\d+:\d+|\dof\d|spars", re.IGNORECASE)
"""Names that ask for weights with zeros in a pattern: `2:4`, `2of4`, `sparse24`."""
_Record = type[Quantizer] | type[Format] | type[Scale] | type[Encoding]


def parse_quantizer(
    spec: str | Mapping[str, object],
    formats: Mapping[str, Format],
    encodings: Mapping[str, Encoding],
) -> Quantizer:
    """The quantizer of a name or an object; see `hwmodels.formats.catalog.quantizer`."""
    if isinstance(spec, str):
        return _from_name(spec, formats, encodings)
    fields = _checked(spec, Quantizer, "quantizer")
    if "format" not in fields:
        raise FormatError("quantizer: field 'format' is missing; give a name or an object")
    fields["format"] = _format(fields["format"], formats, encodings)
    if "transforms" in fields:
        fields["transforms"] = tuple(cast("Iterable[str]", fields["transforms"]))
    return Quantizer(**fields)  # type: ignore[arg-type]


def quantizer_object(quantizer: Quantizer) -> dict[str, object]:
    """A JSON object that `parse_quantizer` turns back into an equal quantizer."""
    return _plain(quantizer)


def _from_name(
    name: str, formats: Mapping[str, Format], encodings: Mapping[str, Encoding]
) -> Quantizer:
    if _SPARSE.search(name):
        raise UnknownFormatError(
            f"format {name!r}: sparse weights (N of M, blocks) are not modelled, neither what "
            "they cost (rates of devices are dense) nor what pruning does to values; take the "
            "pattern out for the price of dense weights, which is an upper bound"
        )
    head, *words = name.split(":")
    found = formats.get(head) or composed_format(head, encodings)
    if found is None:
        where = f" in quantizer {name!r}" if words else ""
        raise UnknownFormatError(
            f"unknown format {head!r}{where}{nearest(head, formats)}; see: dse formats"
        )
    return with_words(Quantizer(format=found), words, name)


def with_words(quantizer: Quantizer, words: Iterable[str], name: str) -> Quantizer:
    """The quantizer with what the words of a name say changed.

    Raises:
        UnknownFormatError: a word that means nothing.
        FormatError: two words of which only one can hold, or a number out of its range.
    """
    said: dict[str, str] = {}
    for word in words:
        changes = _changes(quantizer, word, name)
        for field in changes.keys() - {"transforms"}:
            if said.setdefault(field, word) != word:
                raise FormatError(
                    f"quantizer {name!r}: expected one {field}, got {said[field]!r} and {word!r}"
                )
        quantizer = quantizer.replaced(**changes)
    return quantizer


def _changes(quantizer: Quantizer, word: str, name: str) -> dict[str, object]:
    """The fields that a word sets."""
    if match := _PERCENTILE.fullmatch(word):
        return {"statistic": "percentile", "percentile": float(match[1])}
    for pattern, (field, number) in _NUMBERED.items():
        if match := pattern.fullmatch(word):
            return {field: match[1], number: int(match[2])}
    for field, literal in _WORDS.items():
        if word in get_args(literal):
            return {field: word}
    if TRANSFORM.fullmatch(word):
        return {"transforms": (*quantizer.transforms, word)}
    known = [
        *(word for literal in _WORDS.values() for word in get_args(literal)),
        "percentile99.9",
    ]
    raise UnknownFormatError(
        f"quantizer {name!r}: {word!r} is no statistic, timing, rounding, correction or transform"
        f"{nearest(word, known)}"
    )


def _format(
    value: object, formats: Mapping[str, Format], encodings: Mapping[str, Encoding]
) -> Format:
    if isinstance(value, str):
        return _from_name(value, formats, encodings).format
    fields = _checked(value, Format, "format")
    for key in ("element", "tensor_scale", "zero_point", "offset", "super_scale"):
        if fields.get(key) is not None:
            fields[key] = _encoding(fields[key], encodings, f"format.{key}")
    if fields.get("scale") is not None:
        scale = _checked(fields["scale"], Scale, "format.scale")
        scale["encoding"] = _encoding(scale.get("encoding"), encodings, "format.scale.encoding")
        fields["scale"] = Scale(**scale)  # type: ignore[arg-type]
    missing = [key for key in ("name", "element") if key not in fields]
    if missing:
        raise FormatError(f"format: fields missing: {', '.join(missing)}")
    return Format(**fields)  # type: ignore[arg-type]


def _encoding(value: object, encodings: Mapping[str, Encoding], where: str) -> Encoding:
    if isinstance(value, str):
        if value not in encodings:
            raise UnknownFormatError(
                f"{where}: unknown encoding {value!r}{nearest(value, encodings)}"
            )
        return encodings[value]
    fields = _checked(value, Encoding, where)
    if "codes" in fields:
        fields["codes"] = tuple(cast("Iterable[float]", fields["codes"]))
    missing = [key for key in ("name", "kind", "bits") if key not in fields]
    if missing:
        raise FormatError(f"{where}: fields missing: {', '.join(missing)}")
    return Encoding(**fields)  # type: ignore[arg-type]


def _checked(value: object, record: _Record, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise FormatError(f"{where}: expected a name or an object, got {value!r}")
    known = [field.name for field in dataclasses.fields(record)]
    for key in value:
        if key not in known:
            raise FormatError(f"{where}: unknown field {key!r}{nearest(str(key), known)}")
    for key, allowed in _CHOICES.items():
        if key in value and value[key] not in get_args(allowed):
            raise FormatError(
                f"{where}.{key}: unknown {value[key]!r}; "
                f"expected one of {', '.join(get_args(allowed))}"
            )
    return dict(value)


def _plain(record: Quantizer | Format | Scale | Encoding) -> dict[str, object]:
    """Fields that differ from their defaults, records as objects in turn."""
    plain: dict[str, object] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if value == field.default:
            continue
        plain[field.name] = _plain(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    return plain
