"""The consent store: an append-only log of consent and rights events with two clocks, in SQLite or PostgreSQL.

:class:`ConsentStore` is the whole of it; :mod:`fedgen.policy.store.incoming` reads files of events,
:mod:`fedgen.policy.store.facts` files of profiles and records, :mod:`fedgen.policy.store.signals` browser signals,
:mod:`fedgen.policy.store.outgoing` answers people.
"""

from fedgen.policy.store.chain import Head
from fedgen.policy.store.database import StoreBusy
from fedgen.policy.store.events import ConsentSaid, RightSaid
from fedgen.policy.store.facts import import_profiles, import_records
from fedgen.policy.store.incoming import Imported, import_file
from fedgen.policy.store.store import ConsentStore

__all__ = [
    "ConsentSaid",
    "ConsentStore",
    "Head",
    "Imported",
    "RightSaid",
    "StoreBusy",
    "import_file",
    "import_profiles",
    "import_records",
]
