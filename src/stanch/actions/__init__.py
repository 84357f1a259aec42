"""All actions: one file each (or an action and its undo), found by walking this folder.

An action file imports the standard library, pydantic and `stanch.core`, nothing else: the server and the command line
load it too. There are no plugin entry points: a daemon that runs as root must not import whatever is installed.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from stanch.core.action import Action, AnyAction, DeclarationError, Registry


def load(*, beside: Iterable[Path] = ()) -> Registry:
    """The registry of every action here, and in further files named by path; DeclarationError names a broken file."""
    modules = [*_own_modules(), *map(_module_of, beside)]
    return Registry(one for module in modules for one in declared_in(module))


def declared_in(module: ModuleType) -> list[AnyAction]:
    """The actions that a module declares itself; DeclarationError if it declares none."""
    found = [one for one in vars(module).values() if isinstance(one, Action) and one.source == module.__name__]
    if not found:
        raise DeclarationError(f"{module.__name__} ({module.__file__}) declares no action")
    return found


def _own_modules() -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(__path__):
        yield _import(f"{__name__}.{info.name}")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DeclarationError:
        raise
    except (Exception, SystemExit) as error:
        raise DeclarationError(f"{name} does not import: {type(error).__name__}: {error}") from error


def _module_of(path: Path) -> ModuleType:
    name = f"stanch_action_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DeclarationError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except DeclarationError:
        raise
    except (Exception, SystemExit) as error:
        raise DeclarationError(f"{path} does not import: {type(error).__name__}: {error}") from error
    return module
