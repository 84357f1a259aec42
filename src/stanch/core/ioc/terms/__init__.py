"""The terms of indicators that can be known on Linux, by document; one file for each family of documents.

This is the truth from which collectors, the unknown terms of a scan, `stanch ioc check` and the reference follow.
"""

from collections.abc import Mapping

from stanch.core.ioc.items import Supported
from stanch.core.ioc.terms.accounts import ACCOUNTS
from stanch.core.ioc.terms.devices import DEVICES
from stanch.core.ioc.terms.files import FILES
from stanch.core.ioc.terms.network import NETWORK
from stanch.core.ioc.terms.processes import PROCESSES
from stanch.core.ioc.terms.services import SERVICES
from stanch.core.ioc.terms.system import SYSTEM

DOCUMENTS: Mapping[str, Mapping[str, Supported]] = {
    **FILES,
    **PROCESSES,
    **NETWORK,
    **SERVICES,
    **ACCOUNTS,
    **SYSTEM,
    **DEVICES,
}
"""Document to path (without the document) to what it is here."""
