"""Prompts that name two people and one of them again, in four templates of one length, made by code from a seed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError

TEMPLATES = (
    "Then , A and B went to the old PLACE together . S gave a THING to",
    "When A and B got a THING at the PLACE , S decided to give it to",
    "After A and B had lots of fun at the PLACE , S gave a THING to",
    "While A and B were working late at the old PLACE , S gave a THING to",
)
"""Of 17 tokens each, a word or a mark a token. S is A (the order is BABA: S, IO, S) or B (ABBA: IO, S, S)."""
LENGTH = 17
_WORDS = {
    **{"Then": 10039, "When": 2427, "After": 4582, "While": 3965, ",": 28, ".": 30, "and": 284, "went": 3514},
    **{"to": 288, "the": 260, "old": 1573, "together": 1592, "gave": 4502, "a": 253, "got": 3363, "at": 418},
    **{"decided": 4041, "give": 1928, "it": 357, "had": 761, "lots": 5890, "of": 282, "fun": 1037, "were": 592},
    **{"working": 1891, "late": 3008},
}
_PLACES = {
    **{"store": 4249, "school": 1125, "park": 5949, "office": 4608, "library": 4971, "garden": 4480},
    **{"station": 5729, "restaurant": 15238, "hospital": 5625, "house": 2291, "market": 2342, "museum": 6508},
    **{"church": 4538, "beach": 10724, "airport": 17678, "hotel": 15470},
}
_THINGS = {
    **{"book": 1863, "ball": 4405, "drink": 5968, "gift": 10274, "letter": 4386, "ring": 8233, "box": 3985},
    **{"key": 1646, "computer": 2583, "bottle": 10765, "apple": 11977, "flower": 8525, "card": 3421},
    **{"picture": 4177, "basket": 11831, "map": 4141},
}
_NAMES = {
    **{"Mary": 5099, "John": 2322, "Tom": 8581, "James": 5037, "Dan": 7295, "Martin": 8478, "Amy": 24706},
    **{"Anna": 16435, "Sarah": 8165, "Emma": 20391, "Kate": 28468, "Jane": 12405, "Paul": 5455, "David": 5259},
    **{"Peter": 7288, "Michael": 7937, "Robert": 6356, "William": 4967, "George": 5370, "Thomas": 5874},
    **{"Henry": 6661, "Charles": 6660, "Joseph": 7509, "Daniel": 10789, "Jack": 10262, "Adam": 11845},
    **{"Alex": 5325, "Ben": 5465, "Chris": 18452, "Sam": 5457, "Luke": 17091, "Jason": 27429, "Kevin": 23903},
    **{"Brian": 20165, "Eric": 17696, "Steve": 18171, "Alice": 8590, "Laura": 24316, "Lisa": 24252},
    **{"Susan": 17851, "Helen": 22420, "Rachel": 24576, "Julia": 27864, "Maria": 11924, "Linda": 26502},
    **{"Karen": 25511, "Nancy": 25141, "Lucy": 19388, "Emily": 15487, "Jessica": 36481, "Elizabeth": 9662},
    **{"Anne": 14285, "Ann": 7261, "Sophia": 35901, "Ellen": 27676, "Claire": 41369, "Jennifer": 27207},
    **{"Patricia": 35023, "Barbara": 20193, "Margaret": 16637, "Richard": 7778, "Edward": 9446},
    **{"Andrew": 10795, "Matthew": 14018, "Simon": 15399, "Stephen": 12502, "Philip": 14953, "Patrick": 15728},
    **{"Anthony": 18182, "Ryan": 24310, "Tim": 6362, "Jim": 12134, "Joe": 16632, "Bob": 8363, "Mike": 19331},
    **{"Jeff": 9485, "Greg": 13902, "Roger": 21444, "Alan": 18660, "Arthur": 13706, "Albert": 14338},
    **{"Oliver": 19219, "Harry": 15688, "Louis": 6912, "Samuel": 12407, "Benjamin": 15775, "Alexander": 10472},
    **{"Jonathan": 20102, "Justin": 34382, "Tyler": 34159, "Aaron": 24694, "Nathan": 24423, "Sean": 39000},
    **{"Ella": 43291, "Sara": 31234, "Rebecca": 31584, "Hannah": 32413, "Amanda": 42679},
}
VOCABULARY: Mapping[str, int] = {**_WORDS, **_PLACES, **_THINGS, **_NAMES}
"""Every word of the prompts -> its token in SmolLM2's vocabulary, as it stands at its place: most after a blank."""
HALVES = ("selection", "scoring")
FRAMES_OF_TEMPLATE, VARIANTS = 4, 4
FRAMES = FRAMES_OF_TEMPLATE * len(TEMPLATES)
PROMPTS = 448
"""Sixteen frames, seven pairs of names in each, four prompts of a pair."""
LEAST, MOST = FRAMES * VARIANTS * 2, FRAMES * VARIANTS * 24


def make_prompts(half: str, count: int = PROMPTS, seed: int = 0) -> Dataset:
    """D of one half: prompts of names, places and things that the other half has not.

    A frame is a template with a place and a thing; each is filled with as many pairs of names; a pair gives four
    prompts: either of the two is the one named twice (S), and either stands first. Pairs of a frame share no name.

    Columns: input_ids int64 [N, 17]; io and s, tokens of the indirect object, which is the answer, and of the one
    named twice; positions IO, S1 and S2 of the names; frame 0 to 15, template 0 to 3, order 1 where IO stands first
    (ABBA); pair, a number for the two names in their frame: int64 [N].

    Args:
        half: "selection" or "scoring".
        count: N, a multiple of 64, 128 to 1,536.
        seed: of who meets whom, where, about what.

    Raises:
        StudyError: another half, or a number of prompts that cannot be made.
    """
    faults = [] if half in HALVES else [f"half is '{half}'; expected {' or '.join(HALVES)}"]
    if not LEAST <= count <= MOST or count % (FRAMES * VARIANTS):
        faults.append(f"prompts is {count}; expected a multiple of {FRAMES * VARIANTS} from {LEAST} to {MOST}")
    if faults:
        raise StudyError(faults)
    generator = torch.Generator().manual_seed(seed)
    names, places, things = (_half(words, half, generator) for words in (_NAMES, _PLACES, _THINGS))
    rows, pairs = [], count // (FRAMES * VARIANTS)
    for frame in range(FRAMES):
        template = frame // FRAMES_OF_TEMPLATE
        place, thing = (_one_of(words, generator) for words in (places, things))
        order = torch.randperm(len(names), generator=generator)[: 2 * pairs].tolist()
        for pair, (x, y) in enumerate(zip(order[::2], order[1::2], strict=True)):
            for first, second in ((x, y), (y, x)):
                for io_first in (1, 0):
                    said = {"A": names[first], "B": names[second], "PLACE": place, "THING": thing}
                    rows.append(_row(template, said, io_first) | {"frame": frame, "pair": frame * pairs + pair})
    ids = torch.tensor([row.pop("input_ids") for row in rows])
    columns = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    return Dataset({"input_ids": ids, **columns})


def spell(tokens: Tensor) -> str:
    """A prompt as text, of tokens int64 [17].

    >>> spell(make_prompts("scoring")["input_ids"][0])
    'Then, Alan and Emma went to the old beach together. Emma gave a ring to'
    """
    words = {number: word for word, number in VOCABULARY.items()}
    return " ".join(words[number] for number in tokens.tolist()).replace(" ,", ",").replace(" .", ".")


def _row(template: int, said: Mapping[str, str], io_first: int) -> dict[str, object]:
    words = TEMPLATES[template].split()
    a, b, again = (words.index(name) for name in "ABS")
    io, s = (a, b) if io_first else (b, a)
    filled = {**said, "S": said["B" if io_first else "A"]}
    ids = [VOCABULARY[filled.get(word, word)] for word in words]
    told = {"input_ids": ids, "io": ids[io], "s": ids[s], "IO": io, "S1": s, "S2": again}
    return {**told, "template": template, "order": io_first}


def _half(words: Mapping[str, int], half: str, generator: torch.Generator) -> list[str]:
    order = torch.randperm(len(words), generator=generator)[HALVES.index(half) :: len(HALVES)]
    listed = [*words]
    return [listed[each] for each in order.tolist()]


def _one_of(words: list[str], generator: torch.Generator) -> str:
    return words[int(torch.randint(len(words), (1,), generator=generator))]
