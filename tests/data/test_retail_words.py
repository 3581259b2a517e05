"""Retail shorthand in words."""

import pytest

from sigma_core.data.sources.retail_words import category_name, department_name, size_name, type_name

SIZES = {
    "1 GA": "1 gallon",
    "16 OZ": "16 oz",
    "6 PK/12 OZ": "6 pack 12 oz",
    "10/6.75 OZ": "10 x 6.75 oz",
    "4/4 OZ": "4 x 4 oz",
    "6-4 OZ": "6 x 4 oz",
    "48-54 CT": "48-54 count",
    "8 1/2 OZ": "8.5 oz",
    "1/2 GAL": "0.5 gallon",
    "3/4 OZ": "0.75 oz",
    "L      8 OZ": "8 oz",
    "(600) 4 LB": "4 lb",
    "57 SQ FT": "57 square feet",
    "PT": "1 pint",
    "DZ": "1 dozen",
    "974246  PK": None,
    "CTN": None,
    "LARGE": None,
}
TYPES = {
    ("FRZN SS PREMIUM ENTREES/DNRS/N", "FRZN MEAT/MEAT DINNERS"): "healthy premium frozen dinner",
    ("SOFT DRINKS 12/18&15PK CAN CAR", "SOFT DRINKS"): "soda cans 12 pack",
    ("PREMIUM", "ICE CREAM/MILK/SHERBTS"): "premium ice cream",
    ("PREMIUM", "BACON"): "premium bacon",
    ("PREMIUM", "POPCORN"): "premium popcorn",
    ("FRZN BISCUITS", "FROZEN BREAD/DOUGH"): "frozen biscuits",
    ("ICE CREAM TOPPINGS", "SYRUPS/TOPPINGS"): "ice cream toppings",
    ("DRIED FRUIT - OTHER", "DRIED FRUIT"): "other dried fruit",
    ("HAM STEAKS/CUBES/SLICES", "SMOKED MEATS"): "ham steaks, cubes and slices",
    ("COOKING CHOCOLATE (EX SMI-SWT)", "BAKING NEEDS"): "cooking chocolate",
}


@pytest.mark.parametrize(("raw", "name"), SIZES.items())
def test_sizes(raw, name):
    assert size_name(raw) == name


@pytest.mark.parametrize(("raw", "name"), TYPES.items())
def test_types(raw, name):
    assert type_name(*raw) == name


def test_nothing_stays_nothing():
    assert type_name(None, None) is None
    assert category_name(None) is None


def test_groups():
    assert category_name("REFRGRATD JUICES/DRNKS") == "chilled juices and drinks"
    assert category_name("APPLES") == "apples"
    assert department_name("MEAT-PCKGD") == "packaged meat"
