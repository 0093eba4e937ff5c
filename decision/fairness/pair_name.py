"""Names of pairs for people: two words and a number that follow from the task's id, so nobody has to give or keep them.

There are 600,750, so of 2,000 pairs some six share theirs with another; programs go on with the id. The words are of
birds, colours and seasons: nothing in a name says anything of the pair or sounds like a verdict.
"""

from __future__ import annotations

from decision.fairness.audit_log import digest

# fmt: off
_FIRST = (
    "Amber", "April", "August", "Autumn", "Azure", "Beige", "Blue", "Bronze", "Brown", "Cloudy", "Coastal", "Cobalt",
    "Copper", "Coral", "Crimson", "Daily", "Dawn", "Desert", "Dusky", "Early", "Eastern", "Evening", "Foggy", "Forest",
    "Frosty", "Garden", "Green", "Grey", "Harbour", "Hazel", "Indigo", "Inland", "Island", "Ivory", "July", "June",
    "Lakeside", "Late", "Lilac", "Lunar", "March", "Marsh", "May", "Meadow", "Midday", "Misty", "Morning", "Mountain",
    "Northern", "Ochre", "October", "Olive", "Orange", "Pearl", "Purple", "Rainy", "River", "Rose", "Russet", "Saffron",
    "Sandy", "Scarlet", "Silver", "Snowy", "Southern", "Spring", "Summer", "Sunday", "Tidal", "Valley",
    "Violet", "Western", "Windy", "Winter", "Yellow",
)
_SECOND = (
    "Avocet", "Bittern", "Blackbird", "Bluetit", "Bunting", "Buzzard", "Chaffinch", "Chough", "Coot", "Cormorant",
    "Crane", "Crossbill", "Curlew", "Dipper", "Dove", "Dunlin", "Dunnock", "Eider", "Falcon", "Fieldfare", "Finch",
    "Firecrest", "Gannet", "Goldcrest", "Goldfinch", "Goose", "Goshawk", "Grebe", "Gull", "Harrier", "Heron", "Hobby",
    "Hoopoe", "Ibis", "Jackdaw", "Jay", "Kestrel", "Kingfisher", "Kite", "Knot", "Lapwing", "Lark", "Linnet", "Magpie",
    "Mallard", "Martin", "Merlin", "Moorhen", "Nightjar", "Nuthatch", "Oriole", "Osprey", "Ouzel", "Owl", "Partridge",
    "Petrel", "Pigeon", "Pipit", "Plover", "Puffin", "Quail", "Rail", "Raven", "Redstart", "Redwing", "Robin", "Rook",
    "Ruff", "Sandpiper", "Shearwater", "Siskin", "Skylark", "Snipe", "Sparrow", "Starling", "Stork", "Swallow", "Swan",
    "Swift", "Teal", "Tern", "Thrush", "Treecreeper", "Wagtail", "Warbler", "Waxwing", "Wheatear", "Wigeon", "Wren",
)
# fmt: on
_NUMBERS = 90


def pair_name(task_id: str) -> str:
    """Return the name of the pair with this id, for example ``Harbour Lapwing 42``; always the same."""
    number = int(digest(f"pair:{task_id}")[:16], 16)
    number, first = divmod(number, len(_FIRST))
    number, second = divmod(number, len(_SECOND))
    return f"{_FIRST[first]} {_SECOND[second]} {10 + number % _NUMBERS}"
