"""What every stage needs and what knows nothing of quantum codes.

In and out: values, files, processes, tables.  Every other folder imports from here, and it imports
from none.  Start at ``errors`` and ``files``.
"""
