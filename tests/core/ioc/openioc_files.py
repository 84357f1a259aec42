"""OpenIOC files as tests write them."""

from xml.sax.saxutils import escape, quoteattr

from stanch.core.ioc.expression import Condition, Expression, Group, Operator, Term
from stanch.core.ioc.openioc import V10, V11


def term(**changes: object) -> Term:
    """A term; what does not matter is filled in."""
    facts: dict[str, object] = {
        "id": "t",
        "document": "FileItem",
        "path": "FileName",
        "condition": Condition.IS,
        "content": "x",
        "type": "string",
    }
    return Term(**(facts | changes))  # type: ignore[arg-type]


def group(operator: Operator, *parts: Expression, key: str = "g") -> Group:
    """A group."""
    return Group(id=key, operator=operator, parts=parts)


def written(part: Expression) -> str:
    """A term or group as OpenIOC 1.1 writes it."""
    if isinstance(part, Group):
        inner = "".join(written(one) for one in part.parts)
        return f'<Indicator id={quoteattr(part.id)} operator="{part.operator}">{inner}</Indicator>'
    asked = f"<Context document={quoteattr(part.document)} search={quoteattr(part.name)} type='mir'/>"
    content = f"<Content type={quoteattr(part.type)}>{escape(part.content)}</Content>"
    flags = f'negate="{str(part.negate).lower()}" preserve-case="{str(part.preserve_case).lower()}"'
    return (
        f'<IndicatorItem id={quoteattr(part.id)} condition="{part.condition}" {flags}>{asked}{content}</IndicatorItem>'
    )


def file_11(logic: str, *, key: str = "i-1", metadata: str = "", more: str = "") -> bytes:
    """A whole file of version 1.1."""
    about = f"<metadata><short_description>One</short_description>{metadata}</metadata>"
    return (
        f'<OpenIOC xmlns="{V11}" id="{key}" last-modified="2026-01-02T03:04:05">\n'
        f"{about}<criteria>\n{logic}\n</criteria>{more}</OpenIOC>"
    ).encode()


def file_10(logic: str, *, more: str = "") -> bytes:
    """A whole file of version 1.0."""
    about = "<short_description>Old</short_description><authored_by>Ann</authored_by>"
    return f'<ioc xmlns="{V10}" id="i-0">{about}{more}<definition>{logic}</definition></ioc>'.encode()


ITEM = written(term())
"""A term that is right."""
OR = f'<Indicator id="g" operator="OR">{ITEM}</Indicator>'
"""A group that is right."""
