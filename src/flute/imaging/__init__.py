"""Images of a hospital's PACS: found, recognised, judged, linked to records, de-identified and kept at the hub.

Everything here needs the extra `imaging`; without it the first import says so in one sentence.
"""

from flute.errors import MisuseError

try:
    import pydicom as _pydicom  # noqa: F401 only to see that it is there
except ImportError as _error:
    raise MisuseError("Images need more packages: pip install 'flute[imaging]'.") from _error
