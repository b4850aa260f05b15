"""Questions of our own for tests: what the Python documentation, which the small checkpoints know, goes on with."""

import datasets

SENTENCES = [
    ("A list is a mutable", [" sequence", " banana", " of the"], 0),
    ("A tuple is an immutable", [" with", " sequence", " river"], 1),
    ("Return a new", [" king", " list", " was"], 1),
    ("If the file does not", [" exist", " moon", " and"], 0),
    ("The function returns the", [" value", " whale", " is"], 0),
    ("Raise a ValueError if the", [" sings", " argument", " of"], 1),
]


def _split(rows):
    return {"test": datasets.Dataset.from_list(rows)}


def continues(**_):
    return _split([{"text": text, "choices": choices, "right": right} for text, choices, right in SENTENCES])


def writes(**_):
    return _split([{"text": text, "answer": choices[right]} for text, choices, right in SENTENCES[:3]])


def reads(**_):
    return _split([{"text": text + choices[right] + "."} for text, choices, right in SENTENCES])
