"""What a template names, before anything is rendered: mistakes in names are found when work is submitted."""

from kapelle.core.template import References, lookups


def references(text: str, *, expression: bool = False) -> References:
    """Return what the template (or condition) *text* names.

    Raises:
        TemplateFailed: it is not a template at all; the message says in which of its lines.
    """
    found = None if expression else lookups(text)
    if found is not None:
        return found
    # Loaded only for templates that compute something: it takes a while.
    from kapelle.core.rendering import parsed

    return parsed(text, expression=expression)
