"""OpenIOC files, read."""

import pytest

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.expression import Condition, Operator, depth_of, terms_of
from stanch.core.ioc.openioc import MAX_BYTES, MAX_NOTES, read_openioc
from stanch.core.ioc.xml import MAX_DEPTH
from tests.core.ioc.openioc_files import ITEM, OR, file_10, file_11, group, term, written


def only(data: bytes):
    """The one term of a file."""
    (found,) = terms_of(read_openioc(data).root)
    return found


def item(attributes: str, inside: str = "") -> bytes:
    """A file of 1.1 with one term."""
    inside = inside or '<Context document="FileItem" search="FileItem/FileName"/><Content type="string">x</Content>'
    return file_11(f'<Indicator operator="OR"><IndicatorItem {attributes}>{inside}</IndicatorItem></Indicator>')


def test_a_file_of_11():
    """What it says about itself is kept; parameters and links are noted as left."""
    metadata = (
        "<description>Long</description><authored_by>Ann</authored_by><authored_date>2026-01-01</authored_date>"
        '<links><link rel="a"/><link rel="b"/></links>'
    )
    found = read_openioc(file_11(OR, metadata=metadata, more='<parameters><param id="p"/></parameters>'))
    assert (found.id, found.title, found.description, found.author) == ("i-1", "One", "Long", "Ann")
    assert (found.format, found.created, found.modified) == ("OpenIOC 1.1", "2026-01-01", "2026-01-02T03:04:05")
    assert found.root == group(Operator.OR, term())
    assert found.ignored == ("1 parameters", "2 links")


def test_a_file_of_10():
    """Its facts stand at the top, its logic is called definition, and its terms need no id."""
    logic = ITEM.replace('id="t" ', "").replace('negate="false" preserve-case="false"', "")
    found = read_openioc(file_10(f'<Indicator id="g" operator="OR">{logic}</Indicator>', more="<links><link/></links>"))
    assert (found.id, found.title, found.author, found.format) == ("i-0", "Old", "Ann", "OpenIOC 1.0")
    assert found.root == group(Operator.OR, term(id=""))
    assert found.ignored == ("1 links",)


@pytest.mark.parametrize("condition", Condition)
def test_every_condition_of_11(condition):
    """Is read as it is named."""
    assert only(item(f'condition="{condition}"')).condition is condition


@pytest.mark.parametrize(("said", "condition"), [("isnot", Condition.IS), ("containsnot", Condition.CONTAINS)])
@pytest.mark.parametrize(("negate", "denied"), [("", True), ('negate="false"', True), ('negate="true"', False)])
def test_the_conditions_of_10_that_deny(said, condition, negate, denied):
    """They are negations; with negate as well, they say yes again."""
    found = only(item(f'condition="{said}" {negate}'))
    assert (found.condition, found.negate) == (condition, denied)


@pytest.mark.parametrize(
    ("said", "meant"), [("true", True), ("1", True), ("True ", True), ("false", False), ("0", False)]
)
def test_negate_and_preserve_case(said, meant):
    """As XML schema writes booleans."""
    found = only(item(f'condition="is" negate="{said}" preserve-case="{said}"'))
    assert (found.negate, found.preserve_case) == (meant, meant)


def test_content_is_kept_as_it_stands():
    """White space, entities of XML, CDATA and intervals are the comparer's."""
    inside = '<Context search="PortItem/localPort"/><Content type="int"> [49600 TO 50700]&lt;<![CDATA[&]]></Content>'
    assert only(item('condition="is"', inside)).content == " [49600 TO 50700]<&"


def test_the_search_names_document_and_path():
    """A document beside it that differs is noted, and does not count; without a slash, it does."""
    inside = '<Context document="ProcessItem" search="FileItem/A/B"/><Content/>'
    found = read_openioc(item('condition="is"', inside))
    (one,) = terms_of(found.root)
    assert (one.document, one.path, one.content, one.type) == ("FileItem", "A/B", "", "")
    assert found.ignored == ("the document ProcessItem beside the search FileItem/A/B",)
    one = only(item('condition="is"', '<Context document="FileItem" search="Md5sum"/><Content/>'))
    assert one.name == "FileItem/Md5sum"


def test_nesting_and_order_are_kept():
    """Groups in groups, in the order of the file."""
    tree = group(Operator.AND, group(Operator.OR, term(id="a"), term(id="b"), key="h"), term(id="c"))
    assert read_openioc(file_11(written(tree))).root == tree


def test_several_groups_at_the_top_are_alternatives():
    """One of them is enough."""
    found = read_openioc(file_11(OR + OR.replace('"g"', '"h"').replace('"t"', '"u"')))
    assert found.root.operator is Operator.OR
    assert [one.id for one in found.root.parts] == ["g", "h"]


def test_terms_that_cannot_be_known_are_read():
    """Whether a condition fits, and whether Linux has it, is not asked here."""
    inside = '<Context search="RegistryItem/Path"/><Content type="md5">no hash</Content>'
    assert only(item('condition="greater-than"', inside)).content == "no hash"


def test_what_changes_nothing_is_noted():
    """Attributes that are not known, ids that are there twice, an id that is missing; each once."""
    more = ITEM.replace("<IndicatorItem", '<IndicatorItem colour="red"')
    found = read_openioc(file_11(f'<Indicator operator="OR" node-context="n">{more}{more}</Indicator>', key=""))
    assert found.ignored == (
        "the attribute node-context of <Indicator>",
        "the attribute colour of <IndicatorItem> (2 times)",
        "an id that another term or group has",
        "it has no id",
    )


def test_notes_are_bounded():
    """A file cannot make its notes longer than people read."""
    items = "".join(ITEM.replace("<IndicatorItem", f'<IndicatorItem a{n}=""') for n in range(MAX_NOTES + 9))
    assert len(read_openioc(file_11(f'<Indicator operator="OR">{items}</Indicator>')).ignored) == MAX_NOTES


def test_comments_of_10_are_left():
    """Comments about terms and groups are no part of the logic."""
    commented = ITEM.replace("</IndicatorItem>", "<Comment>why</Comment></IndicatorItem>")
    logic = f'<Indicator id="g" operator="OR"><Comment>all</Comment>{commented}</Indicator>'
    assert read_openioc(file_10(logic)).root == group(Operator.OR, term())


WRONG = {
    "the root": (b"<a/>", "no OpenIOC"),
    "the namespace": (file_11(OR).replace(b"OpenIOC_1.1", b"OpenIOC_1.2"), "no OpenIOC"),
    "the root in the other namespace": (
        file_10(OR).replace(b"<ioc ", b"<OpenIOC ").replace(b"</ioc", b"</OpenIOC"),
        "no",
    ),
    "the namespace of a term": (
        file_11(OR.replace("<IndicatorItem", "<IndicatorItem xmlns='urn:x'")),
        "Not understood",
    ),
    "no logic": (file_11(OR).replace(b"criteria", b"definition"), "no logic"),
    "an empty logic": (file_11(""), "no logic"),
    "two logics": (file_11(OR, more=f"<criteria>{OR}</criteria>"), "twice"),
    "a term at the top": (file_11(ITEM), "Not understood in <criteria>"),
    "an empty group": (file_11('<Indicator operator="AND"/>'), "A group is empty"),
    "an empty group within": (file_11(OR.replace(ITEM, f'{ITEM}<Indicator operator="OR"/>')), "A group is empty"),
    "no operator": (file_11(OR.replace('operator="OR"', "")), "operator is unknown, at line 3, got none"),
    "an operator": (file_11(OR.replace("OR", "XOR")), "operator is unknown, at line 3, got XOR, expected AND or OR"),
    "no condition": (item(""), "condition is unknown, at line 3, got none"),
    "a condition": (item('condition="like"'), "condition is unknown, at line 3, got like, expected is, contains"),
    "negate": (item('condition="is" negate="maybe"'), "The value of negate is unknown, at line 3, got maybe"),
    "preserve-case": (item('condition="is" preserve-case="2"'), "The value of preserve-case is unknown"),
    "no context": (item('condition="is"', "<Content>x</Content>"), "not complete, at line 3, got no <Context>"),
    "no content": (item('condition="is"', '<Context search="A/b"/>'), "not complete, at line 3, got no <Content>"),
    "two contents": (item('condition="is"', '<Context search="A/b"/><Content/><Content/>'), "says too much"),
    "content with elements": (
        item('condition="is"', '<Context search="A/b"/><Content><b/></Content>'),
        "says too much",
    ),
    "no search": (item('condition="is"', '<Context document="A"/><Content/>'), "asks nothing"),
    "an element": (file_11(OR.replace(ITEM, f"{ITEM}<Not/>")), "Not understood in <Indicator>"),
    "an element in a term": (item('condition="is"', '<Context search="A/b"/><Content/><Or/>'), "Not understood in"),
}


@pytest.mark.parametrize(("data", "said"), WRONG.values(), ids=WRONG)
def test_what_would_change_the_logic_is_an_error(data, said):
    """With its line, what was got and what was expected."""
    with pytest.raises(Unreadable, match=said) as caught:
        read_openioc(data)
    assert caught.value.line >= 1
    assert caught.value.got
    assert caught.value.expected


def test_three_megabytes_load_and_one_byte_more_does_not():
    """The bound of the field, exactly."""
    data = file_11(OR)
    padded = data + b" " * (MAX_BYTES - len(data))
    assert read_openioc(padded).title == "One"
    with pytest.raises(Unreadable, match="too large"):
        read_openioc(padded + b" ")


def test_the_deepest_file_that_xml_allows_is_read():
    """Deeper ones are refused by the reader of XML."""
    room = MAX_DEPTH - 4  # the root, its criteria, and a term with its content
    opened = '<Indicator operator="AND">' * room
    root = read_openioc(file_11(f"{opened}{ITEM}{'</Indicator>' * room}")).root
    assert depth_of(root) == room + 1
    with pytest.raises(Unreadable, match="too deep"):
        read_openioc(file_11(f'{opened}<Indicator operator="AND">{ITEM}{"</Indicator>" * (room + 1)}'))


def test_a_full_file_of_the_shortest_terms_is_read():
    """Three megabytes of terms are within the number of elements."""
    short = '<IndicatorItem condition="is"><Context search="A/b"/><Content>x</Content></IndicatorItem>'
    count = (MAX_BYTES - 400) // len(short)
    root = read_openioc(file_11(f'<Indicator operator="OR">{short * count}</Indicator>')).root
    assert len(root.parts) == count


@pytest.mark.shared
def test_every_file_of_the_field_loads(shared_data):
    """68 files by others: 24 of version 1.0 with 799 terms, 44 of 1.1 with 734, 174 of these negated."""
    found = [read_openioc(file.read_bytes()) for file in sorted((shared_data / "openioc").rglob("*.ioc"))]
    terms = {name: [t for one in found if one.format == name for t in terms_of(one.root)] for name in FORMATS}
    assert {name: sum(one.format == name for one in found) for name in FORMATS} == FORMATS
    assert {name: len(some) for name, some in terms.items()} == {"OpenIOC 1.0": 799, "OpenIOC 1.1": 734}
    assert sum(one.negate for one in terms["OpenIOC 1.1"]) == 174
    assert sum(one.negate for one in terms["OpenIOC 1.0"]) == 1
    assert sum(one.preserve_case for one in terms["OpenIOC 1.1"]) == 8
    assert all(one.id and one.title for one in found)
    assert not [note for one in found for note in one.ignored if "links" not in note]


FORMATS = {"OpenIOC 1.0": 24, "OpenIOC 1.1": 44}
