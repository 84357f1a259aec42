"""The heart of Stanch: what an action is, declared once, from which everything else is derived.

An action file declares parameters, a result and one function; `@action` makes a frozen `Action` of them. REST, the
command line, forms, permissions, OpenC2, reference pages and the agent's dispatch are pure functions of the
`Registry` of all actions. A declaration that breaks a rule raises `DeclarationError` when its file is imported, so
that a broken file refuses to start instead of failing at three in the morning.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Generic, Protocol, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, ValidationError

from stanch.core.errors import Invalid, UnknownAction
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.types import Text, minutes, show_duration

RESERVED = frozenset(
    {
        "endpoint",
        "reason",
        "case",
        "valid_for",
        "wait",
        "dry_run",
        "label",
        "group",
        "json",
        "help",
        "yes",
        "quiet",
        "confirm",
    }
)
"""Names that belong to the order itself; no parameter may take them."""

_GOT = re.compile(r"got .{1,200}?, expected ", re.DOTALL)
_TIMEDELTA = re.compile(r"datetime\.timedelta\(((?:days|seconds)=\d+(?:, seconds=\d+)?)\)")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class DeclarationError(TypeError):
    """An action file breaks a rule of the house; the message says which and where."""


class Params(Model):
    """The parameters of an action: every field described and bounded."""

    model_config = ConfigDict(defer_build=True)
    """An agent knows many actions and carries out few: what checks them is made when it is first used."""

    def does_also(self) -> tuple[str, ...]:
        """Names of other actions whose work an order with these does besides: who forbids those, forbids it."""
        return ()


class Result(Model):
    """What an action answers: every field described and bounded."""

    model_config = ConfigDict(defer_build=True)


class Risk(StrEnum):
    """How bad it is to be wrong; roles are granted up to a risk."""

    READ_ONLY = "read-only"
    DISRUPTIVE = "disruptive"
    DESTRUCTIVE = "destructive"

    @property
    def rank(self) -> int:
        """0, 1, 2: comparable."""
        return list(Risk).index(self)


class AfterCrash(StrEnum):
    """What the agent does about a task that it had begun when it was killed."""

    RERUN = "rerun"
    """Run it again: it only reads."""

    VERIFY_THEN_FINISH = "verify-then-finish"
    """Look whether the effect is there; if not, run it again: it must be safe to repeat, guided by its record."""

    REVERT = "revert"
    """Undo what the record says was begun, and report failure."""

    UNKNOWN = "unknown"
    """It ran once, and nobody can tell how far it got: say so."""


class Concurrency(StrEnum):
    """What may run beside it on one endpoint."""

    EXCLUSIVE = "exclusive"
    """One at a time among all exclusive ones."""

    SHARED = "shared"
    """Beside anything."""

    BACKGROUND = "background"
    """Long work: a bounded number at a time."""


class Verdict(StrEnum):
    """What `verify` saw."""

    IN_PLACE = "in-place"
    ABSENT = "absent"
    CANNOT_TELL = "cannot-tell"


@dataclass(frozen=True, slots=True)
class Check:
    """The answer of `verify`: is the effect there, and what was seen."""

    verdict: Verdict
    detail: str

    @classmethod
    def of(cls, seen: bool, detail: str) -> "Check":  # noqa: FBT001 - one boolean is the whole question
        """In place or absent."""
        return cls(Verdict.IN_PLACE if seen else Verdict.ABSENT, detail)


class Step(Model):
    """One thing that would be done."""

    what: Text
    """What would happen, in the imperative."""

    target: Text
    """To what."""


class Plan(Model):
    """A dry run: what would be touched. Nothing was changed."""

    changes: bool
    """False if there is nothing to do."""

    steps: Annotated[tuple[Step, ...], Field(max_length=10_000)] = ()
    """What would be done, in order."""

    warnings: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """What to know before saying yes."""


P = TypeVar("P", bound=Params)
R = TypeVar("R", bound=Result)

Run = Callable[[Host, P], Awaitable[R]]
PlanFn = Callable[[Host, P], Awaitable[Plan]]
VerifyFn = Callable[[Host, P, R | None], Awaitable[Check]]
"""The result is None after a crash: then only `host.journal.recorded()` tells what was begun."""


@dataclass(frozen=True, slots=True)
class Undo(Generic[P, R]):
    """The order that takes an action back: another action, its parameters made from what happened."""

    action: str
    params: Callable[[P, R], Params | None]
    """None if there is nothing to take back in this way."""
    otherwise: "Undo[P, R] | None" = None
    """Another way, for where this one has nothing to take back."""

    @property
    def ways(self) -> "Iterator[Undo[P, R]]":
        """This way, and the others, in the order in which they are tried."""
        yield self
        if self.otherwise is not None:
            yield from self.otherwise.ways

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions that may take it back."""
        return tuple(one.action for one in self.ways)


@dataclass(frozen=True, slots=True)
class Irreversible:
    """An explicit "cannot be undone", and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The OpenC2 action and target that mean this action."""

    action: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Generic[P, R]):
    """One kind of response. Calling it runs it."""

    name: str
    version: int
    risk: Risk
    after_crash: AfterCrash
    concurrency: Concurrency
    time_limit: timedelta
    examples: tuple[str, ...]
    """Command lines after the action's own command, for `--help` and the reference."""

    summary: str
    description: str
    params: type[P]
    result: type[R]
    run: Run[P, R] = field(repr=False)
    plan: PlanFn[P] | None = field(default=None, repr=False)
    verify: VerifyFn[P, R] | None = field(default=None, repr=False)
    undo: Undo[P, R] | Irreversible | None = None
    openc2: Pair | None = None
    typed: bool = False
    """Must a person type what it is done to, since a yes is given too quickly?"""
    opt_in: bool = False
    """Is it refused unless the owner of the machine switches it on in the local policy?"""
    interactive: bool = False
    """Does a person sit at a terminal of it while it runs? Then it is for one endpoint at a time."""
    release_code: bool = False
    """Does each task of it come with a code that takes its effect back at the endpoint itself, without the server?"""
    source: str = ""
    """The module that declares it."""

    async def __call__(self, host: Host, params: P) -> R:
        """Run it."""
        return await self.run(host, params)

    @property
    def command(self) -> str:
        """The name as a command: `kill-process`."""
        return self.name.replace("_", "-")

    @property
    def read_only(self) -> bool:
        """Does it change nothing on the endpoint?"""
        return self.risk is Risk.READ_ONLY

    def parse(self, raw: Mapping[str, Any]) -> P:
        """Checked parameters from foreign data; Invalid names each wrong field, what it got and what it expected."""
        try:
            return self.params.model_validate(_json_object(raw))
        except ValidationError as error:
            raise invalid_fields(f"The parameters of {self.name} are wrong", error) from None

    def parse_result(self, raw: Mapping[str, Any]) -> R:
        """A checked result; Invalid if the endpoint sent something else.

        Fields that are not known here, at any depth, are left out: an agent may be newer than the server that reads
        its result, and a task that is done must not fail for what it tells besides. What is left out takes no room:
        a report has a bound, and only known fields, each with its own bound, are kept. An older agent's result is
        read since every field that is added to a result later has a default. Parameters are the opposite: an agent
        that does not know one must not act as if it were not there, so `parse` refuses it.
        """
        try:
            return self.result.model_validate(_json_object(raw), extra="ignore")
        except ValidationError as error:
            raise invalid_fields(f"The result of {self.name} is not of its type", error) from None

    def undo_params(self, params: P, result: R) -> tuple[str, Params] | None:
        """The action and parameters that take this run back; None if there is nothing to take back, or no way to."""
        if not isinstance(self.undo, Undo):
            return None
        tried = ((one.action, one.params(params, result)) for one in self.undo.ways)
        return next(((name, back) for name, back in tried if back is not None), None)


AnyAction = Action[Any, Any]


def _json_object(raw: object) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise Invalid("Not a JSON object", got=type(raw).__name__)
    return raw


def invalid_fields(message: str, error: ValidationError) -> Invalid:
    """A pydantic error as ours: the first wrong fields, each with what was got and expected."""
    wrong = error.errors(include_url=False, include_context=False)[:5]
    places = [".".join(map(str, one["loc"])) for one in wrong]
    lines = "; ".join(f"{at}{at and ': '}{expectation(one['msg'])}" for at, one in zip(places, wrong, strict=True))
    got = ", ".join(f"{at}{at and '='}{_brief(one['input'])}" for at, one in zip(places, wrong, strict=True))
    return Invalid(message, got=got, expected=lines)


def expectation(text: str) -> str:
    """What was expected, of pydantic's message; what was got is told beside it. Lists are called lists."""
    text = _GOT.sub("", text.removeprefix("Value error, ")).removeprefix("expected ")
    text = _TIMEDELTA.sub(lambda found: show_duration(timedelta(**_parts(found[1]))), text)
    return text.replace("a valid tuple", "a list").replace("Tuple should", "List should")


def _parts(written: str) -> dict[str, int]:
    """`days=1, seconds=30` of a timedelta that pydantic has written as Python does."""
    return {name: int(number) for name, _, number in (one.partition("=") for one in written.split(", "))}


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "…"  # noqa: PLR2004 - one line for people


class Declare(Protocol):
    """The decorator that `action` makes."""

    def __call__(self, run: Run[P, R], /) -> Action[P, R]:
        """The declaration of the decorated function."""
        ...


def action(
    name: str,
    *,
    version: int,
    risk: Risk,
    after_crash: AfterCrash,
    examples: tuple[str, ...],
    concurrency: Concurrency = Concurrency.SHARED,
    time_limit: timedelta = minutes(5),
    plan: PlanFn[Any] | None = None,
    verify: VerifyFn[Any, Any] | None = None,
    undo: Undo[Any, Any] | Irreversible | None = None,
    openc2: Pair | None = None,
    typed: bool = False,
    opt_in: bool = False,
    interactive: bool = False,
    release_code: bool = False,
) -> Declare:
    """Declare an action: the decorated function runs it, its annotations are the parameters and the result."""

    def declare(run: Run[P, R]) -> Action[P, R]:
        params, result = _models(run)
        for other in (plan, verify):
            if other is not None and get_type_hints(other).get(_second(other)) is not params:
                raise DeclarationError(f"{run.__module__}: {other.__name__} must take the same {params.__name__}")
        summary, _, rest = (run.__doc__ or "").strip().partition("\n")
        declared = Action(
            name=name,
            version=version,
            risk=risk,
            after_crash=after_crash,
            concurrency=concurrency,
            time_limit=time_limit,
            examples=examples,
            summary=summary.strip(),
            description=" ".join(rest.split()),
            params=params,
            result=result,
            run=run,
            plan=plan,
            verify=verify,
            undo=undo,
            openc2=openc2,
            typed=typed,
            opt_in=opt_in,
            interactive=interactive,
            release_code=release_code,
            source=run.__module__,
        )
        check_declaration(declared)
        return declared

    return declare


def _second(function: Callable[..., Any]) -> str:
    return list(inspect.signature(function).parameters)[1]


def _models(run: Callable[..., Any]) -> tuple[type[Any], type[Any]]:
    hints = get_type_hints(run)
    result = hints.pop("return", None)
    params = list(hints.values())[-1] if hints else None
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise DeclarationError(f"{run.__module__}: {run.__name__} takes (host: Host, params: <a Params>), got {params}")
    if not (isinstance(result, type) and issubclass(result, Result)):
        raise DeclarationError(f"{run.__module__}: {run.__name__} must return a Result, got {result}")
    return params, result


def check_declaration(declared: AnyAction) -> None:
    """Raise DeclarationError for what a single declaration can get wrong."""
    changes = not declared.read_only
    rules = {
        "a name in lower case with underscores": bool(_NAME.fullmatch(declared.name)),
        "a version from 1": declared.version >= 1,
        "a docstring": bool(declared.summary),
        "at least one example": bool(declared.examples),
        "a description for every field": not undescribed(declared.params) + undescribed(declared.result),
        "no reserved parameter": not RESERVED & set(declared.params.model_fields),
        "`plan` and `verify`, since it changes the endpoint": not changes or bool(declared.plan and declared.verify),
        "`undo`, or Irreversible with the reason": not changes or declared.undo is not None,
        "after_crash other than rerun, since it changes the endpoint": not changes
        or declared.after_crash is not AfterCrash.RERUN,
    }
    broken = [rule for rule, held in rules.items() if not held]
    if broken:
        raise DeclarationError(f"{declared.source}: action {declared.name!r} needs {'; '.join(broken)}")


def undescribed(model: type[Model]) -> list[str]:
    """The fields of a model that say nothing about themselves."""
    return [name for name, info in model.model_fields.items() if not info.description]


class Registry(Mapping[str, AnyAction]):
    """All actions by name. Built once at start; two actions of one name, or an undo that does not exist, refuse."""

    def __init__(self, actions: Iterable[AnyAction]) -> None:
        found: dict[str, AnyAction] = {}
        for one in actions:
            if one.name in found:
                raise DeclarationError(f"{one.source}: {one.name!r} is already declared in {found[one.name].source}")
            found[one.name] = one
        self._actions = dict(sorted(found.items()))
        self._check_undo()

    def _check_undo(self) -> None:
        for one in self._actions.values():
            for back in one.undo.actions if isinstance(one.undo, Undo) else ():
                if back not in self._actions:
                    raise DeclarationError(f"{one.source}: {one.name!r} is undone by {back!r}, which is nowhere")
                if self._actions[back].typed:
                    # Nobody is asked to type anything by an undo.
                    raise DeclarationError(f"{one.source}: {one.name!r} is undone by {back!r}, which must be typed")

    def __getitem__(self, name: str) -> AnyAction:
        return self._actions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._actions)

    def __len__(self) -> int:
        return len(self._actions)

    def find(self, name: str) -> AnyAction:
        """The action, by name or command; UnknownAction if there is none."""
        found = self._actions.get(name.replace("-", "_"))
        if found is None:
            raise UnknownAction("There is no such action", got=name[:100], expected=", ".join(self._actions))
        return found

    def versions(self) -> dict[str, int]:
        """Name to version, as `hello` tells the server."""
        return {name: one.version for name, one in self._actions.items()}
