"""What commands print."""


def listed_files(text, folder):
    """The names in the list of files that a command prints of a folder, sorted."""
    _, _, rest = text.partition(f"files in {folder}: ")
    return sorted(rest.split("\n")[0].split())


def widest(text):
    """The length of the longest line."""
    return max(map(len, text.splitlines()))
