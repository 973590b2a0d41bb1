"""The category of each piece of Sweet Home 3D's catalogues, by which rooms are furnished."""

# English names in the catalogues, separated by commas, by category; pieces with other names are left out
_NAMES: dict[str, str] = {
    "sofa": (
        "Burlap sofa, Clear sofa, Convertible sofa BZ, Couch, Futon couch, Sofa, Sofa 2 seats, Sofa 3 seats, "
        "Winchester sofa"
    ),
    "corner_sofa": "Corner sofa",
    "armchair": "Armchair, Modern armchair, Winchester armchair, Puff",
    "coffee_table": "Coffee table",
    "tv_unit": "TV stand",
    "tv": "TV, TV 16:9",
    "wall_tv": "Wall flat TV",
    "bookcase": "Bookcase, Full bookcase, Shelves, Vertical shelves, Contemporary living room",
    "dining_table": "Black table, Glass table, Oak table, Round table, Table, Table on trestles, Table with tablecloth",
    "chair": "Chair, Chair with cushion, Folding chair, Oak chair, Osaka chair, Plastic chair",
    "stool": "Bar chair, Bar stool, Stool, Piano bench",
    "bed": "Bed, Iron bed, Child bed, Captain's bed, Bunk bed, Mezzanine bed",
    "crib": "Baby bed, Crib",
    "bedside_table": "Bedside table",
    "wardrobe": "Wardrobe, Cupboard",
    "chest_of_drawers": "Chest, Dresser with drawers",
    "desk": "Desk, Desk table, Wooden desk, Wooden alder table, Wooden table, Wooden teak table",
    "office_chair": "",
    "computer": "Apple iMac 1998, Apple iMac 2004, Apple iBook, Laptop",
    "kitchen_base": (
        "Drawers cabinet, Lower cabinet, Small lower cabinet, Sink, Sink cabinet, Large stove, Propane stove, Island"
    ),
    "kitchen_corner": "Lower corner cabinet",
    "kitchen_tall": "High cabinet",
    "kitchen_wall": "Glass door cabinet, Small upper cabinet, Upper cabinet, Upper shelves cabinet, Hood",
    "fridge": "Fridge, Large fridge, Refrigerator",
    "washing_machine": "Clothes washing machine, Dryer machine, Washing machine",
    "toilet": "Toilets unit",
    "bath": "Bath, Corner bathtub, Island bath",
    "shower": "Shower stall",
    "washbasin": "Double vanity, Vanity, Washbasin, Small lavatory",
    "radiator": "Radiator",
    "floor_lamp": "",
    "table_lamp": "Desk lamp, Lamp, Little lamp, Pedestal vase lamp",
    "ceiling_lamp": "Ceiling lamp, Hanging light, Pendant lamp, Ceiling fan",
    "wall_lamp": "Wall light, Wall spotlight, Track lights, Fluorescent strip, Wall lamp artwork",
    "plant": "Decorative plant, Ficus, Indoor plant, Plant, Spathiphyllum, Yucca",
    "rug": "Bathmat, Round carpet, Doormat",
    "picture": "",
    "mirror": "",
    "fireplace": "Fireplace",
    "piano": "Grand piano, Upright piano",
    "curtain": "Curtain, Shower curtain",
    "small": (
        "Apples, Bamboo, Bonsai tree, Book, Bottle, Bowl, Bowl with fruits, Bread box, Briefcase, Cactus, Candle, "
        "Christmas tree, Chessboard, Coffee brewer, Coffee machine, Coffee maker, DVD player, Espresso kettle, "
        "Flowers, Folded clothes, Frame Chambord, Gift, Handbag, Inkjet printer and scanner, Japanese lantern, "
        "Kitchen scale, Large pan, Letter tray, Little plant, Microwave, Mini stereo, Mixer, Newspaper, Old jar, "
        "Paper towel holder, Phone, PlayStation, Radio, Small oven, Speaker, Spice tower, Spider plant, Stereo "
        "amplifier, Succulent plant, Table fan, Teapot, Teddy bear, Toaster, Tray, Tulips, Utensils pot, Vase, Video "
        "projector, White lily, Wine bottle"
    ),
    "door": "Door, Double door, Double door with panes, Exterior door, Glass door",
    "window": (
        "Double French window 3 panes, Double French window small panes, Double window 3 panes, Double window 4 "
        "panes, Double window with large pane, Double-hung window, Quadruple French window, Quadruple French window 3 "
        "panes, Quadruple French window small panes, Sliding window, Triple French window"
    ),
    "other": (
        "Armchair ottoman, Baby high chair, Bar table, Basin, Bench, Bidet, Box, Bullet trash can, Cardboard box, "
        "Changing table, Chest freezer, Child chair, Children chair, Children table, Clothes basket, Clothes rack, "
        "Day bed, Doll house, Dressing table, Electric guitar, Filing cabinet, Folding table, Futon, Hanging clothes, "
        "Island extension, Pool table, Rocking horse, Ryokan chair, Safe, Screen, Suitcase, Technical table, "
        "Television cabinet, Towel rack, Trunck, Water cooler"
    ),
}

# categories of single pieces whose names are ambiguous; "" leaves a piece out
PIECES: dict[str, str] = {
    "Blend Swap CC-0#armchair": "office_chair",
    "Blend Swap CC-0#bench": "",  # for the garden
    "Blend Swap CC-0#box": "",
    "Blend Swap CC-0#ammoBox": "",
    "Blend Swap CC-0#couch2": "corner_sofa",
    "Blend Swap CC-0#lamp2": "ceiling_lamp",
    "Blend Swap CC-0#radiator": "",  # fins that do not survive thinning
    "Blend Swap CC-0#radiator3": "",
    "Blend Swap CC-BY#bathroomRadiator": "",
    "Kator Legaz#custom-desk": "other",
    "Kator Legaz#office-chair": "office_chair",
    "Scopia#bamboo": "",
    "Scopia#christmas_tree": "plant",
    "Scopia#coffee_table": "other",  # half a disc
    "Scopia#ext_chair": "",
    "Scopia#ext_table": "",
    "Scopia#ficusTree": "",
    "Scopia#glassDoor2": "",  # black all over
    "Scopia#kids_desk_chair": "office_chair",
    "Scopia#kitchenHood": "",
    "Scopia#living_lamp": "floor_lamp",
    "Scopia#living_room_table": "coffee_table",
    "Scopia#office_box": "bookcase",
    "Scopia#office_chair": "office_chair",
    "Scopia#puerta": "",  # surfaces in one place
    "Scopia#silla_teca": "",
    "Scopia#table3": "other",
    "Scopia#vase5": "",
}

CATEGORIES = tuple(_NAMES)

_CATEGORY = {name: category for category, names in _NAMES.items() for name in names.split(", ") if name}


def category_of(piece: str, name: str) -> str:
    """Return the category of a piece, or an empty string for a piece that is left out.

    Args:
        piece: its identifier, such as ``"Scopia#bed1"``.
        name: its English name in the catalogue.
    """
    return PIECES.get(piece, _CATEGORY.get(name, ""))
