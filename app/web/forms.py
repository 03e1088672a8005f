"""Forms: what every one of them shares. CSRF is checked for all requests in `web.safety`, so a form does not check it again."""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from flask_wtf import FlaskForm
from wtforms import Form as PlainForm
from wtforms import StringField, ValidationError
from wtforms.validators import Length


class Form(FlaskForm):  # type: ignore[misc]
    """A form of explicit fields; what else is posted is ignored."""

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        """Off: the request was checked before the view."""

        csrf = False

    @property
    def sentences(self) -> dict[str, str]:
        """Field name → the one sentence to show beside it."""
        return {name: str(found[0]) for name, found in self.errors.items() if name and found}

    def refuse(self, field: str, sentence: str) -> None:
        """Mark a field with what a verb had against it."""
        self[field].errors = [*self[field].errors, sentence]

    @property
    def values(self) -> Mapping[str, Any]:
        """What was entered, by field name."""
        return {name: field.data for name, field in self._fields.items()}


class Line(StringField):
    """One line of text: outer blanks cut off, at most ``most`` characters, no control characters."""

    def __init__(self, label: str, most: int = 120, **options: Any) -> None:
        checks = [Length(max=most, message=f"Use at most {most} characters."), _is_plain, *options.pop("validators", [])]
        super().__init__(label, checks, filters=[lambda text: " ".join(text.split(" ")).strip() if text else ""], **options)


def _is_plain(_form: PlainForm, field: StringField) -> None:
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in field.data or ""):
        raise ValidationError("Write this on one line, without control characters.")


class Choice(StringField):
    """One of a list, kept as key → word. The list is asked for at each form, so it may depend on settings."""

    def __init__(self, label: str, options: Callable[[], Mapping[str, str]], **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.options = options

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Key and word, as the `select` macro takes them."""
        return list(self.options().items())

    def pre_validate(self, form: Any) -> None:  # noqa: ARG002 - the library calls it so
        """Refuse what is not on the list."""
        if (self.data or "") not in self.options():
            raise ValidationError("Choose one from the list.")


class Choices(Choice):
    """Any number of a list."""

    data: list[str]  # type: ignore[assignment]

    def process_formdata(self, valuelist: list[str]) -> None:
        """All that were ticked, each once."""
        self.data = list(dict.fromkeys(valuelist))

    def pre_validate(self, form: Any) -> None:  # noqa: ARG002 - the library calls it so
        """Refuse what is not on the list."""
        if not set(self.data or ()) <= set(self.options()):
            raise ValidationError("Choose from the list.")
