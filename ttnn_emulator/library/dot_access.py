"""ttnn.dot_access: dictionaries whose keys are attributes too."""

__all__ = ["DotAccessDict", "make_dot_access_dict"]


class DotAccessDict(dict):
    """d.key is d["key"], and a key that is not there is a KeyError."""

    __getattr__ = dict.__getitem__
    __delattr__ = dict.__delitem__


def make_dot_access_dict(dictionary, *, ignore_types=None) -> DotAccessDict:
    """The dictionary and those in it, but for `ignore_types`, with attributes."""
    if isinstance(dictionary, DotAccessDict) or (ignore_types and isinstance(dictionary, ignore_types)):
        return dictionary
    return DotAccessDict(
        (k, make_dot_access_dict(v, ignore_types=ignore_types) if isinstance(v, dict) else v)
        for k, v in dictionary.items()
    )
