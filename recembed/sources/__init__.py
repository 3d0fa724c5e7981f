"""Files → lazy frames, and what is wrong with a file that cannot be read."""

from recembed.sources.files import Format, Source, find_files
from recembed.sources.scan import reading, scan

__all__ = ["Format", "Source", "find_files", "reading", "scan"]
